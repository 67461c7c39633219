// The page around the picture: which camera, what it is like, figures, full screen.

import './berrymse.js';

/** How often the facts are asked for: while it plays, and while it does not. Milliseconds. */
const ASK = { playing: 5000, other: 2000 };

const at = (id) => document.getElementById(id);
const player = at('player');
let timer = 0;

function facts(camera) {
  const parts = [];
  if (camera.width) parts.push(`${camera.width}×${camera.height}`);
  if (camera.framerate) parts.push(`${Math.round(camera.framerate)} fps`);
  if (camera.bitrate) parts.push(`${(camera.bitrate / 1e6).toFixed(1)} Mbit/s`);
  if (camera.source.startsWith('the test card')) parts.push(camera.source);
  return parts.join(' · ');
}

/** The camera that the address names: #front. */
const wanted = () => decodeURIComponent(location.hash.slice(1));

function choose() {
  player.setAttribute('src', wanted() ? `live/${encodeURIComponent(wanted())}` : 'live');
  ask();
}

async function ask() {
  clearTimeout(timer);
  try {
    const answer = await fetch('api/status');
    if (answer.ok) tell(await answer.json());
  } catch {
    at('facts').textContent = '';
  }
  timer = setTimeout(ask, document.hidden ? 60000 : (ASK[player.state] ?? ASK.other));
}

function tell({ cameras, password, config_error: problem, reboot_needed: reboot }) {
  const camera = cameras.find(({ name }) => name === wanted()) ?? cameras[0];
  at('title').textContent = cameras.length && camera?.name !== 'camera' ? camera.name : 'BerryMSE';
  document.title = camera && camera.name !== 'camera' ? `${camera.name} · BerryMSE` : 'BerryMSE';
  at('facts').textContent = camera ? facts(camera) : '';
  // What the machine is set up with is not what was meant: said first, and where to mend it.
  at('mistake').hidden = !problem && !reboot;
  at('mistake').textContent = problem ?? 'What was changed is in force after a restart: see the settings.';
  at('warning').hidden = password;
  at('warning').textContent =
    'Open to everybody in this network: set a password in berrymse.toml, under [server].';
  at('cameras').hidden = cameras.length < 2;
  const links = cameras.map(({ name }) => {
    const link = document.createElement('a');
    link.href = `#${encodeURIComponent(name)}`;
    link.textContent = name;
    if (name === camera.name) link.setAttribute('aria-current', 'page');
    return link;
  });
  if (at('cameras').textContent !== links.map((link) => link.textContent).join('')
    || at('cameras').querySelector('[aria-current]')?.textContent !== camera?.name) {
    at('cameras').replaceChildren(...links);
  }
}

function figures() {
  player.overlay = !player.overlay;
  at('figures').setAttribute('aria-pressed', player.overlay);
}

at('figures').onclick = figures;
at('fullscreen').onclick = player.ondblclick = () => player.fullscreen();
addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === 'f') player.fullscreen();
  if (event.key === 's') figures();
});
addEventListener('hashchange', choose);
document.addEventListener('visibilitychange', () => document.hidden || ask());
player.addEventListener('statechange', ask);
if (wanted()) choose();
else ask();
