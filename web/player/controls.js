// The user interface of <berry-mse>: style sheet, control bar, statistics as text, and downloads.

export const STYLE = `
  :host { display: block; position: relative; overflow: hidden; background: #000; color: #fff;
    font: 1rem/1.4 system-ui, sans-serif; }
  video, canvas { position: absolute; inset: 0; width: 100%; height: 100%;
    object-fit: var(--berry-mse-fit, contain); }
  [hidden] { display: none !important; }
  .still { filter: brightness(.5); }
  .notice { position: absolute; inset: 0; display: grid; place-content: center; padding: 8%;
    text-align: center; overflow-wrap: anywhere; }
  .still:not([hidden]) + .notice:not(.tap) { place-content: end start; padding: 1rem; text-align: start; }
  .notice span { background: rgb(0 0 0 / .6); border-radius: .5rem; padding: .5em .8em; }
  button { font: inherit; color: #fff; cursor: pointer; }
  :focus-visible { outline: 2px solid #fff; outline-offset: -2px; }
  .notice button { font-size: 1.25em; background: rgb(0 0 0 / .75); border: 2px solid #fff;
    border-radius: 3em; padding: .6em 1.4em; }
  .overlay { position: absolute; top: .5rem; left: .5rem; margin: 0; padding: .5em .8em;
    background: rgb(0 0 0 / .6); border-radius: .5rem; font: .8125rem/1.5 ui-monospace, monospace;
    pointer-events: none; }
  .controls { position: absolute; inset: auto 0 0; display: flex; justify-content: end; padding: .25rem;
    background: linear-gradient(transparent, rgb(0 0 0 / .6)); }
  @media (hover) { :host(:not(:hover)) .controls:not(:focus-within) { opacity: 0; } }
  .controls button { display: grid; place-items: center; width: 2.75rem; height: 2.75rem; padding: 0;
    background: none; border: 0; border-radius: 50%; }
  .controls button:first-child { margin-right: auto; }
  [aria-pressed=true] { color: #ff5c8a; }
  svg { width: 1.375rem; fill: none; stroke: currentColor; stroke-width: 2; stroke-linecap: round;
    stroke-linejoin: round; }
`;

/** Name, label and icon of each button. */
const BUTTONS = {
  play: ['Pause', 'M8 4v16M16 4v16'],
  snapshot: ['Save snapshot', 'M3 7h4l2-3h6l2 3h4v13H3zM12 9a4 4 0 100 8 4 4 0 000-8z'],
  record: ['Record', 'M12 5a7 7 0 100 14 7 7 0 000-14z'],
  overlay: ['Show statistics', 'M4 20v-8M10 20V4M16 20v-6M22 20H2'],
  fullscreen: ['Full screen', 'M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5'],
};
const PLAY_ICON = 'M7 4l13 8-13 8z';
const icon = (path) => `<svg viewBox="0 0 24 24" aria-hidden="true"><path d="${path}"/></svg>`;

/**
 * Updates the buttons in `bar`, and creates them on the first call. `onPress(name)` is called when a button
 * is pressed.
 */
export function updateBar(bar, { paused, recording, overlay }, onPress) {
  if (!bar.firstChild) {
    bar.innerHTML = Object.entries(BUTTONS).map(([name, [title, path]]) =>
      `<button type="button" name="${name}" title="${title}" aria-label="${title}">${icon(path)}</button>`).join('');
    bar.onclick = ({ target }) => onPress(target.closest('button')?.name);
  }
  const buttons = bar.children;
  buttons.play.title = buttons.play.ariaLabel = paused ? 'Play' : 'Pause';
  buttons.play.innerHTML = icon(paused ? PLAY_ICON : BUTTONS.play[1]);
  buttons.record.ariaPressed = recording;
  buttons.overlay.ariaPressed = overlay;
}

/** Returns the text of the overlay. */
export function statisticsText(stats) {
  const ms = (time) => `${time?.toFixed(time < 9.95 ? 1 : 0) ?? '?'} ms`;
  return `age         ${ms(stats.age)}
round trip  ${ms(stats.roundTrip)}
shown       ${stats.shown.toFixed(1)} of ${stats.received.toFixed(1)} fps
skipped     ${stats.skipped}, dropped ${stats.dropped}
bit rate    ${(stats.bitrate / 1e6).toFixed(2)} Mbit/s
policy      ${stats.policy}
reconnects  ${stats.reconnects}`;
}

/** Time that a downloaded file stays in memory. */
const DOWNLOAD_TIMEOUT_MS = 60000;

/** Downloads `blob` as a file with the given extension. */
export function download(blob, extension) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = `camera.${extension}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), DOWNLOAD_TIMEOUT_MS);
}
