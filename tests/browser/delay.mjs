// Measures the age of each picture when the browser shows it: the camera (camera.mjs) records when it
// sends each frame, and the page records when it shows it. A WebSocket aligns their clocks.

import { fileURLToPath } from 'node:url';
import { camera, TIMESCALE } from './camera.mjs';
import { files, open, sleep } from './lib.mjs';

export const web = fileURLToPath(new URL('../../web', import.meta.url));

/** Runs in the page before all other scripts, and records in `shown` when each frame is shown. */
export function notes() {
  // [stream time in s, display time in ms of this page's clock, frames shown so far, s to the end of the
  // buffer]
  window.shown = [];
  const watch = (video) => {
    const next = (now, frame) => {
      const { buffered } = video;
      const end = buffered.length ? buffered.end(buffered.length - 1) : frame.mediaTime;
      window.shown.push([frame.mediaTime, frame.presentationTime, frame.presentedFrames, end - frame.mediaTime]);
      video.requestVideoFrameCallback(next);
    };
    video.requestVideoFrameCallback(next);
  };
  let drawn = 0;
  const draw = CanvasRenderingContext2D.prototype.drawImage;
  CanvasRenderingContext2D.prototype.drawImage = function (image, ...rest) {
    draw.call(this, image, ...rest);
    if (self.VideoFrame && image instanceof VideoFrame) {
      window.shown.push([image.timestamp / 1e6, performance.now(), ++drawn]);
    }
  };
  const create = document.createElement;
  document.createElement = function (name, ...rest) {
    const element = create.call(this, name, ...rest);
    if (name === 'video') watch(element);
    return element;
  };
  addEventListener('DOMContentLoaded', () => document.querySelectorAll('video').forEach(watch));
}

/** Returns the page's clock minus this process's, in ms, from the shortest of several round trips. */
async function offset(page) {
  return page.evaluate(async () => {
    const socket = new WebSocket(`ws://${location.host}/clock`);
    await new Promise((resolve, reject) => { socket.onopen = resolve; socket.onerror = reject; });
    let best = { trip: Infinity };
    for (let id = 1; id <= 20; id++) {
      const asked = performance.now();
      socket.send(JSON.stringify({ type: 'time', id }));
      const { data } = await new Promise((resolve) => { socket.onmessage = resolve; });
      const received = performance.now();
      const trip = received - asked;
      if (trip < best.trip) best = { trip, offset: (asked + received) / 2 - JSON.parse(data).now };
    }
    socket.close();
    return best.offset;
  });
}

const quantile = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];

/** Returns every frame shown so far: {time, at, age, count}. `age` is in ms, undefined for the initial backlog. */
export async function rows(page, cam) {
  const off = await offset(page);
  const shown = await page.evaluate(() => window.shown);
  let odd = 0;
  return shown.map(([mediaTime, at, count]) => {
    const ticks = mediaTime * TIMESCALE;
    let time = Math.round(ticks / cam.step) * cam.step;
    // Browsers round to microseconds.
    if (Math.abs(time - ticks) > 20) {
      // After a seek, and while hidden, Firefox and WebKit report the playback position instead of the
      // frame's time.
      if (++odd > 1 + shown.length / 2) throw new Error(`no frame was sent for ${mediaTime} s`);
      time = Math.floor(ticks / cam.step) * cam.step;
    }
    const sent = cam.sent.get(time);
    return { time, at: at - off, age: sent === undefined ? undefined : at - off - sent, count };
  });
}

/** Returns statistics of the frames that were sent between two times of this process's clock. */
export function judge(rows, cam, from, to, period) {
  const frames = [...cam.sent].filter(([, at]) => at >= from && at < to);
  const seen = new Map(rows.map((row) => [row.time, row]));
  // A busy page may miss callbacks, so the browser's frame counter is used.
  const inside = rows.filter((row) => row.age !== undefined && row.at - row.age >= from && row.at - row.age < to);
  if (inside.length < 2) return { frames: frames.length, shown: inside.length, frozen: to - from };
  const first = inside[0], last = inside.at(-1);
  const span = (last.time - first.time) / cam.step;
  const skipped = Math.max(0, span - (last.count - first.count));
  const ages = frames.map(([time]) => seen.get(time)?.age).filter((age) => age !== undefined).sort((a, b) => a - b);
  const gaps = inside.slice(1).map((row, n) => row.at - inside[n].at);
  return {
    frames: frames.length,
    skipped: skipped / Math.max(1, span),
    late: ages.filter((age) => age > period).length / ages.length,
    median: quantile(ages, 0.5),
    p95: quantile(ages, 0.95),
    max: ages.at(-1),
    frozen: Math.max(...gaps),
  };
}

/** Returns the page with scripts that run these functions before all others, in any browser. */
export const first = (html, ...scripts) => String(html).replace(/^<!doctype html>/,
  (start) => `${start}<script>${scripts.map((script) => `(${script})();`).join('\n')}</script>`);

/** Returns a page that contains only the element. */
export const element = (attributes = '') => `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
  <style>body { margin: 0 } berry-mse { width: 1280px; height: 720px }</style>
  <script type="module" src="berrymse.js"></script><berry-mse ${attributes}></berry-mse>`;

const status = JSON.stringify({ version: 'test', uptime: 1, password: true, cameras: [{ name: 'camera', state: 'streaming',
  source: 'a test', width: 1280, height: 720, framerate: 30, bitrate: 2e6 }] });

/** Returns `pages` for a camera: `html`, and `script` as the player (default: the modules in web/). */
export const pages = (html, script) => {
  const own = files(web, 'index.html');
  return (path) => {
    if (path === '/') return html;
    if (path === '/api/status') return status;
    if (path === '/berrymse.js' && script) return script;
    return own(path);
  };
};

/**
 * Opens `html` on a camera that plays `material`, and measures `tries` windows of `seconds`. Returns the
 * best window.
 */
export async function measure(browser, material, html, options) {
  const { period = 33.4, jitter, history = 59, spoil, settle = 4, seconds = 8.4, tries = 3 } = options;
  const cam = await camera(material, { period, jitter, history, spoil,
    pages: pages(first(html, notes), material.script) });
  const page = await open(browser, `http://127.0.0.1:${cam.port}/`);
  try {
    await sleep(settle * 1000);
    const windows = [];
    let all = [];
    for (let n = 0; n < tries; n++) {
      const from = performance.now();
      await sleep(seconds * 1000);
      const to = performance.now();
      await sleep(1500); // late frames
      all = await rows(page, cam);
      windows.push(judge(all, cam, from, to, period));
    }
    const worth = (window) => (window.median ?? Infinity) + 1000 * (window.skipped ?? 1);
    const best = windows.reduce((a, b) => (worth(b) < worth(a) ? b : a));
    const policy = await page.evaluate(() => document.querySelector('berry-mse')?.stats?.policy);
    return { ...best, policy, windows, rows: all, complaints: page.complaints };
  } finally {
    await page.context().close();
    await cam.stop();
  }
}

/** Maximum age of a picture that counts as live after a stall, in ms. */
const LIVE_AGE_MS = 200;

/**
 * Opens `html` and stalls the network for 500 ms, `stalls` times. Returns, for each stall, the time from its
 * end to the first live picture, in ms; Infinity if no live picture is shown within 3 s.
 */
export async function recovery(browser, material, html, stalls) {
  const cam = await camera(material, { history: 59, pages: pages(first(html, notes), material.script) });
  const page = await open(browser, `http://127.0.0.1:${cam.port}/`);
  try {
    await sleep(3000);
    const times = [];
    for (let n = 0; n < stalls; n++) {
      await cam.stall(500);
      const moment = performance.now();
      await sleep(3000);
      const live = (await rows(page, cam)).find((row) => row.at > moment && row.age < LIVE_AGE_MS);
      times.push(live ? live.at - moment : Infinity);
    }
    return times;
  } finally {
    await page.context().close();
    await cam.stop();
  }
}
