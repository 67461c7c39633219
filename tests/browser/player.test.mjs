// <berry-mse>: which frames it shows, and how it recovers. Most tests run against the camera of camera.mjs,
// which knows when each frame was sent; those that involve the server run against the server.
// These tests count frames and wait for states. They do not measure times, which depend on the load of
// the machine; ./ci/bench delay does. unit/policy.test.mjs tests the policies in virtual time.

import { after, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { camera, longGroup, material } from './camera.mjs';
import { element, first, notes, pages, rows, web } from './delay.mjs';
import { browser as launch, clip, hide, host, open, otherHost, serve, site, sleep, state } from './lib.mjs';

let browser, stuff;
before(async () => { [browser, stuff] = await Promise.all([launch(), material()]); });
after(async () => { await browser?.close(); });

/** Starts a camera, opens a page with its element, and waits until it plays. `html`, `player`: another page or script. */
async function play(t, { attributes = '', html = element(attributes), player = stuff.script, before = [],
  name = '127.0.0.1', wait = 'playing', ...options } = {}) {
  const cam = await camera(stuff, { history: 59, pages: pages(html, player), ...options });
  t.after(cam.stop);
  const script = [notes, ...before].map((script) => `(${script})();`).join('\n');
  const page = await open(browser, `http://${name}:${cam.port}/`, { before: script });
  t.after(() => page.context().close());
  if (wait) await state(page, wait);
  return { cam, page };
}

const get = (page, expression) => page.evaluate(`document.querySelector('berry-mse').${expression}`);

/** Maximum age of a live picture, in ms: far more than a busy machine adds, far less than any backlog here. */
const LIVE_AGE_MS = 500;

/** Waits for a live picture after `moment` (of this process's clock). Returns the number of pictures shown before it. */
async function live(page, cam, moment = performance.now()) {
  for (const until = performance.now() + 20_000; performance.now() < until; await sleep(100)) {
    const later = (await rows(page, cam)).filter((row) => row.at > moment);
    const found = later.findIndex((row) => row.age < LIVE_AGE_MS);
    if (found >= 0) return found;
  }
  throw new Error('playback is not live again');
}

/** Waits until `condition()` is true. */
async function until(what, condition) {
  for (const end = performance.now() + 20_000; !await condition(); await sleep(50)) {
    if (performance.now() > end) throw new Error(`waited 20 s until ${what}`);
  }
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

/** Records every state. */
const states = () => {
  window.states = [];
  document.addEventListener('DOMContentLoaded', () => {
    document.querySelector('berry-mse').addEventListener('statechange', ({ detail }) => {
      window.states.push(detail.state);
    });
  });
};

/** Returns the ages of the last 60 pictures. Pictures of the initial backlog have no age. */
const ages = async (page, cam) => (await rows(page, cam)).slice(-60).map(({ age }) => age ?? Infinity);

for (const mode of ['run-ahead', 'nudge', 'webcodecs']) {
  test(`the newest pictures are shown (${mode})`, async (t) => {
    const { cam, page } = await play(t, { attributes: `mode="${mode}"` });
    await page.waitForFunction(() => window.shown.length > 90);
    const found = median(await ages(page, cam));
    t.diagnostic(`median age ${found.toFixed(1)} ms`);
    assert.ok(found > 0 && found < LIVE_AGE_MS, `${found}`);
    assert.equal((await get(page, 'stats')).policy, mode);
    assert.deepEqual(page.complaints, []);
  });
}

test('a page that plays the whole backlog stays behind: the measurement can fail', async (t) => {
  const html = first(readFileSync(new URL('rivals.html', import.meta.url), 'utf8'));
  const { cam, page } = await play(t, { html, wait: null });
  await page.waitForFunction(() => window.shown.length > 120);
  const found = median(await ages(page, cam));
  assert.ok(found > 2 * LIVE_AGE_MS, `${found}`);
});

test('the modules play unbundled, from any web server', async (t) => {
  for (const mode of ['run-ahead', 'webcodecs']) {
    const { cam, page } = await play(t, { player: null, attributes: `mode="${mode}"` });
    await live(page, cam);
    const loaded = await page.evaluate(() => performance.getEntriesByType('resource').map(({ name }) => new URL(name).pathname));
    const modules = readdirSync(join(web, 'player')).map((name) => `/player/${name}`);
    assert.ok(modules.length > 5);
    assert.deepEqual(modules.filter((name) => !loaded.includes(name)), []);
    assert.deepEqual(page.complaints, []);
    await page.context().close();
  }
});

test('the reported statistics are correct', async (t) => {
  const { cam, page } = await play(t);
  await page.evaluate(() => {
    window.samples = [];
    document.querySelector('berry-mse').addEventListener('stats', ({ detail }) => window.samples.push(detail));
  });
  const start = { number: cam.number(), at: performance.now() };
  await page.waitForFunction(() => window.samples.length === 6);
  const fps = (cam.number() - start.number) / (performance.now() - start.at) * 1000;
  const samples = await page.evaluate(() => window.samples);
  const stats = samples.at(-1);
  const mean = (name) => samples.reduce((sum, sample) => sum + sample[name], 0) / samples.length;
  const measured = (await rows(page, cam)).map(({ age }) => age).filter((age) => age !== undefined);
  assert.ok(stats.age > Math.min(...measured) - 1 && stats.age < Math.max(...measured) + 1,
    `${stats.age} of ${Math.min(...measured)} to ${Math.max(...measured)}`);
  // Rates are per second, not per tick or per sample.
  assert.ok(mean('received') > fps / 1.5 && mean('received') < fps * 1.5, `${mean('received')} of ${fps}`);
  assert.ok(stats.shown > 0 && mean('shown') < fps * 1.5, `${mean('shown')} of ${fps}`);
  assert.ok(mean('bitrate') > 5e5 && mean('bitrate') < 1e7, `${mean('bitrate')}`);
  assert.deepEqual([stats.policy, stats.width, stats.height, stats.codec], ['run-ahead', 1280, 720, stuff.text.codec]);
  assert.ok(stats.roundTrip > 0 && stats.roundTrip < 1000, `${stats.roundTrip}`);
  cam.say({ type: 'dropped', frames: 7 });
  await page.waitForFunction(() => document.querySelector('berry-mse').stats.dropped === 7);
  assert.deepEqual(page.complaints, []);
});

test('against the server, the age is known', async (t) => {
  const server = await serve();
  t.after(server.stop);
  const page = await open(browser, server.url);
  await state(page, 'playing');
  const ages = await page.evaluate(() => new Promise((resolve) => {
    const ages = [];
    document.querySelector('berry-mse').addEventListener('stats', ({ detail }) => {
      if (detail.age !== null && ages.push(detail.age) === 8) resolve(ages);
    });
  }));
  t.diagnostic(`ages ${ages.map((age) => age.toFixed(1))} ms`);
  assert.ok(Math.min(...ages) > 0 && Math.min(...ages) < LIVE_AGE_MS, `${ages}`);
  assert.deepEqual(page.complaints, []);
});

for (const [name, wanted] of [[host, 'run-ahead'], ['localhost', 'webcodecs']]) {
  test(`WebCodecs is used only in secure contexts: ${name}`, async (t) => {
    const { page } = await play(t, { name, attributes: 'mode="webcodecs"' });
    await page.waitForFunction(() => document.querySelector('berry-mse').stats);
    assert.equal((await get(page, 'stats')).policy, wanted);
    assert.deepEqual(page.complaints, []);
  });
}

test('run-ahead is not used for 60 frames per second on a 60 Hz screen', async (t) => {
  for (const [name, wanted] of [[host, 'nudge'], ['localhost', 'webcodecs']]) {
    const { page } = await play(t, { name, period: 16.7 });
    await page.waitForFunction(() => document.querySelector('berry-mse').stats?.shown > 0);
    assert.equal((await get(page, 'stats')).policy, wanted);
    await page.context().close();
  }
});

test('skips a backlog of 59 frames when it is opened in a long group', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'berrymse-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const command = ['ffmpeg', '-v', 'error', '-re', '-i', longGroup(folder), '-c', 'copy', '-flush_packets', '1', '-f', 'h264', '-'];
  const server = await serve(`[[camera]]\nsource = { command = ${JSON.stringify(command)} }\n`);
  t.after(server.stop);
  const page = await open(browser, 'about:blank', { before: notes });
  await until('the camera has 59 frames', async () => (await server.status()).cameras[0].frames >= 59);
  await page.goto(server.url, { waitUntil: 'commit' });
  await page.waitForFunction(() => window.shown.length > 60);
  const shown = await page.evaluate(() => window.shown);
  const first = shown.findIndex(([, , , lag]) => lag < LIVE_AGE_MS / 1000);
  t.diagnostic(`${first} pictures before the first live one, at ${shown[first]?.[0].toFixed(2)} s`);
  // At any playback rate below 2, the backlog would take more than 60 pictures.
  assert.ok(first >= 0 && first <= 10, `${shown.map(([, , , lag]) => lag.toFixed(2))}`);
  assert.ok(shown[first][0] > 1.4, `of the newest pictures: ${shown[first][0]} s`);
  assert.deepEqual(page.complaints, []);
});

for (const mode of ['run-ahead', 'nudge', 'webcodecs']) {
  test(`catches up after a network stall (${mode})`, async (t) => {
    const { cam, page } = await play(t, { attributes: `mode="${mode}"` });
    await live(page, cam);
    const late = [];
    for (let n = 0; n < 3; n++) {
      await cam.stall(1200);
      late.push(await live(page, cam));
      await sleep(1500);
      assert.equal(await get(page, 'state'), 'playing');
    }
    t.diagnostic(`late pictures: ${late}`);
    // 36 frames arrive at once. At any playback rate below 2, more than 40 pictures would be late, unless one
    // of the 36 is a key frame.
    assert.ok(median(late) <= 20, `${late}`);
    assert.equal((await get(page, 'stats')).policy, mode);
    assert.equal((await get(page, 'stats')).reconnects, 0);
    assert.deepEqual(page.complaints, []);
  });
}

test('a connection that falls silent is replaced', async (t) => {
  const { cam, page } = await play(t, { before: [states] });
  const [first] = cam.viewers;
  const stall = cam.stall(10_000);
  await page.waitForFunction(() => window.states.includes('reconnecting'));
  await stall;
  await live(page, cam);
  await state(page, 'playing');
  assert.ok(!cam.viewers.has(first));
  assert.equal(cam.viewers.size, 1);
});

test('the picture returns after the server is killed and restarted', async (t) => {
  let server = await serve();
  t.after(() => server.stop());
  const page = await open(browser, server.url, { before: states });
  await state(page, 'playing');
  for (const away of [500, 6000]) {
    server.kill();
    await state(page, 'reconnecting');
    await sleep(away);
    server = await serve('', server.port);
    await state(page, 'playing');
  }
  await page.waitForFunction(() => document.querySelector('berry-mse').stats?.reconnects >= 2);
});

test('the picture returns when the camera disappears and returns', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'berrymse-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  // The camera plays while the file exists.
  const file = join(folder, 'plugged-in');
  const ffmpeg = `ffmpeg -v error -re -stream_loop -1 -i ${clip} -c copy -flush_packets 1 -f h264 -`;
  const script = `while [ -e ${file} ]; do ${ffmpeg} & p=$!; while [ -e ${file} ]; do sleep .05; done; kill $p; wait $p; done; exit 1`;
  writeFileSync(file, '');
  const server = await serve(`[[camera]]\nsource = { command = ${JSON.stringify(['sh', '-c', script])} }\n`);
  t.after(server.stop);
  const page = await open(browser, server.url, { before: notes });
  await state(page, 'playing');
  rmSync(file);
  await state(page, 'waiting');
  await page.waitForFunction(() => document.querySelector('berry-mse').message.includes('ended'));
  writeFileSync(file, '');
  const noted = await page.evaluate(() => window.shown.length);
  await page.waitForFunction((noted) => window.shown.length > noted + 30, noted);
  await state(page, 'playing');
  assert.equal((await get(page, 'stats')).reconnects, 0, 'the connection remains');
  assert.deepEqual(page.complaints, []);
});

for (const mode of ['auto', 'webcodecs']) {
  test(`the size changes in mid-stream, without waiting for a key frame (${mode})`, async (t) => {
    const make = (size) => `ffmpeg -v error -re -f lavfi -i testsrc2=size=${size}:rate=30 -c:v libx264 -preset ultrafast `
      + '-tune zerolatency -g 30 -t 4 -flush_packets 1 -f h264 -';
    const script = `${make('640x480')}; ${make('800x600')}; ${make('640x480')}; sleep 60`;
    const server = await serve(`[server]\norigins = ["*"]\n[[camera]]\nsource = { command = ${JSON.stringify(['sh', '-c', script])} }\n`);
    t.after(server.stop);
    const other = await site(pages(element(`mode="${mode}"`), stuff.script), server.port);
    t.after(other.stop);
    const page = await open(browser, `http://127.0.0.1:${other.port}/`, { before: notes });
    const sized = (width) => page.waitForFunction((width) => {
      const { stats, video, shadowRoot } = document.querySelector('berry-mse');
      return stats?.width === width && (video.videoWidth || shadowRoot.querySelector('.canvas').width) === width;
    }, width);
    for (const width of [640, 800, 640]) {
      const noted = await page.evaluate(() => window.shown.length);
      await sized(width);
      await page.waitForFunction((noted) => window.shown.length > noted + 30, noted);
    }
    const { skipped } = await get(page, 'stats');
    t.diagnostic(`${skipped} frames skipped`);
    // A group has 30 frames: a player that waited for the next key frame would lose a group at each
    // change.
    assert.ok(skipped < 60, `${skipped}`);
    assert.equal((await get(page, 'stats')).reconnects, 0);
    assert.deepEqual(page.complaints, []);
  });
}

test('a hidden page disconnects, and is live again when it is shown', async (t) => {
  const { cam, page } = await play(t, { before: [states] });
  await live(page, cam);
  // A short visit to another tab: the connection remains.
  const [first] = cam.viewers;
  await hide(page, true);
  await sleep(1000);
  await hide(page, false);
  await live(page, cam);
  assert.deepEqual([...cam.viewers], [first]);
  await hide(page, true);
  await until('it has disconnected', () => cam.viewers.size === 0);
  assert.equal(await get(page, 'state'), 'paused');
  // While the page is hidden, nothing runs: no timer, no request.
  const timers = await page.evaluate(() => new Promise((resolve) => {
    let asked = 0;
    for (const name of ['setTimeout', 'setInterval', 'requestAnimationFrame', 'WebSocket', 'fetch']) {
      const was = window[name];
      window[name] = function (...all) { asked++; return new.target ? new was(...all) : was(...all); };
    }
    const done = performance.now() + 3000;
    const channel = new MessageChannel();
    channel.port1.onmessage = () => (performance.now() > done ? resolve(asked) : channel.port2.postMessage(0));
    channel.port2.postMessage(0);
  }));
  assert.equal(timers, 0);
  // Five minutes pass by the page's clock; ./ci/bench soak waits in real time.
  await page.evaluate(() => { const now = Date.now; Date.now = () => now() + 300_000; });
  const moment = performance.now();
  await hide(page, false);
  const late = await live(page, cam, moment);
  t.diagnostic(`${late} late pictures`);
  assert.ok(late <= 20, `${late}`); // far fewer than the backlog of more than 59 frames
  assert.equal(await get(page, 'state'), 'playing');
  assert.deepEqual(page.complaints, []);
});

test('the connection is replaced after the computer was suspended', async (t) => {
  const { cam, page } = await play(t);
  await live(page, cam);
  const [first] = cam.viewers;
  await page.evaluate(() => { const now = Date.now; Date.now = () => now() + 3600_000; });
  await until('another connection is there', () => !cam.viewers.has(first) && cam.viewers.size === 1);
  await live(page, cam);
});

test('restarts and reports an error after data that cannot be decoded', async (t) => {
  for (const mode of ['run-ahead', 'webcodecs']) {
    const { cam, page } = await play(t, { attributes: `mode="${mode}"` });
    await page.evaluate(() => {
      window.errors = [];
      document.querySelector('berry-mse').addEventListener('error', ({ detail }) => window.errors.push(detail));
    });
    await live(page, cam);
    cam.garbage();
    await page.waitForFunction(() => window.errors.length > 0);
    const [error] = await page.evaluate(() => window.errors);
    assert.equal(error.fatal, false);
    assert.ok(error.message.length > 10);
    await live(page, cam);
    await state(page, 'playing');
    await page.context().close();
  }
});

test('makes room when the buffer is full, and keeps playing', async (t) => {
  // Once the second group has begun, the first may be removed.
  const { cam, page } = await play(t, { history: 200, before: [() => {
    const { appendBuffer, remove } = SourceBuffer.prototype;
    window.removed = 0;
    SourceBuffer.prototype.appendBuffer = function (data) {
      if (window.full) { window.full = false; throw new DOMException('full', 'QuotaExceededError'); }
      return appendBuffer.call(this, data);
    };
    SourceBuffer.prototype.remove = function (...range) { window.removed++; return remove.apply(this, range); };
  }] });
  await page.waitForFunction(() => document.querySelector('berry-mse').video.currentTime > 10.5);
  await page.evaluate(() => { window.full = true; });
  await page.waitForFunction(() => window.removed > 0);
  await live(page, cam);
  assert.equal(await page.evaluate(() => window.removed), 1);
  const stats = await get(page, 'stats');
  assert.equal(stats.reconnects, 0);
  const numbers = (await rows(page, cam)).map(({ time }) => time / cam.step);
  // Run-ahead occasionally skips a frame; making room must not leave a gap.
  const steps = numbers.slice(11).map((number, n) => number - numbers[n + 10]);
  assert.ok(Math.max(...steps) < 30, `a gap of ${Math.max(...steps) - 1} frames`);
  assert.deepEqual(page.complaints, []);
});

test('a group of pictures longer than the back buffer plays without a gap', async (t) => {
  const { cam, page } = await play(t, { history: 10, period: 66.7 }); // 20 s between key frames
  await sleep(14_000);
  const numbers = (await rows(page, cam)).filter(({ age }) => age !== undefined).slice(15).map(({ time }) => time / cam.step);
  const steps = numbers.slice(1).map((number, n) => number - numbers[n]);
  assert.ok(numbers.length > 60 && Math.max(...steps) < 30, `${numbers.length} frames, a gap of ${Math.max(...steps) - 1}`);
  await live(page, cam);
  assert.deepEqual(page.complaints, []);
  assert.equal((await get(page, 'stats')).reconnects, 0);
});

test('a policy that skips frames is replaced by the next', async (t) => {
  // A browser that skips every second frame during fast playback.
  const skips = () => {
    const { requestVideoFrameCallback } = HTMLVideoElement.prototype;
    HTMLVideoElement.prototype.requestVideoFrameCallback = function (callback) {
      let passed = 0;
      const video = this;
      const filter = (now, frame) => {
        if (video.playbackRate > 1.3 && passed++ % 2 === 0) requestVideoFrameCallback.call(video, filter);
        else callback(now, { ...frame, mediaTime: frame.mediaTime, presentationTime: frame.presentationTime,
          presentedFrames: Math.floor(frame.presentedFrames / 2) });
      };
      return requestVideoFrameCallback.call(this, filter);
    };
  };
  for (const [name, wanted] of [[host, 'nudge'], ['127.0.0.1', 'webcodecs']]) {
    const { page } = await play(t, { name, before: [skips] });
    const policies = new Set();
    await page.waitForFunction(() => document.querySelector('berry-mse').stats?.policy === 'run-ahead');
    for (let n = 0; n < 120 && !policies.has(wanted); n++) {
      policies.add((await get(page, 'stats'))?.policy);
      await sleep(500);
    }
    assert.ok(policies.has(wanted), `${name}: ${[...policies]}`);
    await page.context().close();
  }
});

test('a button is shown if the browser requires a tap', async (t) => {
  const { page } = await play(t, { wait: 'tap', before: [() => {
    const { play } = HTMLMediaElement.prototype;
    HTMLMediaElement.prototype.play = function () {
      return navigator.userActivation.hasBeenActive ? play.call(this)
        : (this.pause(), Promise.reject(new DOMException('no', 'NotAllowedError')));
    };
  }] });
  await page.getByRole('button', { name: 'Tap to play' }).click();
  await state(page, 'playing');
});

test('a message is shown in a browser without Media Source Extensions', async (t) => {
  const { page } = await play(t, { wait: 'unsupported', before: [() => {
    for (const name of ['MediaSource', 'ManagedMediaSource', 'VideoDecoder']) delete window[name];
  }] });
  assert.match(await get(page, 'message'), /Media Source Extensions/);
  assert.deepEqual(page.complaints, []);
});

test('ManagedMediaSource (a stand-in for the iPhone\'s) receives data only when it accepts data', async (t) => {
  const { cam, page } = await play(t, { wait: null, before: [() => {
    const { MediaSource } = window;
    delete window.MediaSource;
    window.ManagedMediaSource = class extends MediaSource {
      streaming = false;
      constructor() { super(); window.source = this; }
      set(streaming) {
        this.streaming = streaming;
        this.dispatchEvent(new Event(streaming ? 'startstreaming' : 'endstreaming'));
      }
    };
  }] });
  await page.waitForFunction(() => window.source?.sourceBuffers.length);
  await sleep(500);
  assert.equal(await get(page, 'video.buffered.length'), 0);
  assert.deepEqual(await page.evaluate(() => {
    const { disableRemotePlayback, playsInline, muted } = document.querySelector('berry-mse').video;
    return { disableRemotePlayback, playsInline, muted };
  }), { disableRemotePlayback: true, playsInline: true, muted: true });
  await page.evaluate(() => window.source.set(true));
  await state(page, 'playing');
  await page.evaluate(() => window.source.set(false));
  await sleep(300);
  const end = () => get(page, 'video.buffered.end(0)');
  const before = await end();
  await sleep(700);
  assert.equal(await end(), before, 'nothing is appended until then');
  await page.evaluate(() => window.source.set(true));
  await live(page, cam);
  assert.deepEqual(page.complaints, []);
});

// ---- Public API ----

test('attributes and properties reflect each other', async (t) => {
  const { page } = await play(t, { attributes: 'fit="cover" poster="icon.svg" overlay controls' });
  const got = await page.evaluate(() => {
    const element = document.querySelector('berry-mse');
    const before = { fit: element.fit, style: getComputedStyle(element.video).objectFit, overlay: element.overlay,
      controls: element.controls, mode: element.mode, src: element.src, muted: element.muted, paused: element.paused,
      autoplay: element.autoplay, poster: element.video.poster.endsWith('/icon.svg') };
    Object.assign(element, { fit: 'fill', overlay: false, controls: false, mode: 'nudge' });
    const names = ['fit', 'overlay', 'controls', 'mode'].map((name) => element.getAttribute(name));
    return { before, names, style: getComputedStyle(element.video).objectFit };
  });
  assert.deepEqual(got, {
    before: { fit: 'cover', style: 'cover', overlay: true, controls: true, mode: 'auto', src: '', muted: true,
      paused: false, autoplay: true, poster: true },
    names: ['fill', null, null, 'nudge'], style: 'fill',
  });
  await page.waitForFunction(() => document.querySelector('berry-mse').stats?.policy === 'nudge');
  assert.deepEqual(page.complaints, []);
});

test('with autoplay="false", plays, pauses and resumes on request', async (t) => {
  const { cam, page } = await play(t, { attributes: 'autoplay="false"', wait: 'paused' });
  await sleep(300);
  assert.equal(cam.viewers.size, 0);
  await page.evaluate(() => document.querySelector('berry-mse').play());
  assert.equal(await get(page, 'state'), 'playing');
  await get(page, 'pause()');
  assert.deepEqual([await get(page, 'state'), await get(page, 'paused')], ['paused', true]);
  assert.equal(await page.evaluate(() => document.querySelector('berry-mse').shadowRoot.querySelector('.still').hidden), false);
  await sleep(300);
  assert.equal(cam.viewers.size, 0);
  await page.getByRole('button', { name: 'Play' }).click();
  await state(page, 'playing');
  await live(page, cam);
  assert.deepEqual(page.complaints, []);
});

test('snapshots and recordings are valid files', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'berrymse-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const server = await serve();
  t.after(server.stop);
  for (const mode of ['run-ahead', 'webcodecs']) {
    const page = await open(browser, `http://127.0.0.1:${server.port}/`);
    await page.evaluate((mode) => { document.querySelector('berry-mse').mode = mode; }, mode);
    await sleep(300);
    await state(page, 'playing');
    const bytes = await page.evaluate(async () => {
      const element = document.querySelector('berry-mse');
      const read = async (blob) => [blob.type, [...new Uint8Array(await blob.arrayBuffer())]];
      const picture = await read(await element.snapshot('image/jpeg', 0.9));
      const recording = element.record();
      const start = performance.now();
      await new Promise((resolve) => { setTimeout(resolve, 4000); });
      const seconds = (performance.now() - start) / 1000;
      const { duration } = recording;
      return { picture, film: await read(recording.stop()), duration, seconds };
    });
    assert.deepEqual([bytes.picture[0], bytes.film[0]], ['image/jpeg', 'video/mp4']);
    const file = join(folder, `${mode}.mp4`);
    writeFileSync(file, Buffer.from(bytes.film[1]));
    writeFileSync(join(folder, 'picture.jpg'), Buffer.from(bytes.picture[1]));
    const probe = (name, ...more) => JSON.parse(execFileSync('ffprobe', ['-v', 'error', '-count_frames', '-show_streams',
      '-of', 'json', ...more, join(folder, name)], { stdio: ['ignore', 'pipe', 'pipe'] })).streams[0];
    assert.deepEqual([probe('picture.jpg').width, probe('picture.jpg').height], [1280, 720]);
    const film = probe(`${mode}.mp4`);
    const frames = Number(film.nb_read_frames);
    // The recording starts at a key frame, of which there is one per second: allow one second.
    assert.ok(frames > 60 && frames < 30 * (bytes.seconds + 1), `${frames} frames in ${bytes.seconds} s`);
    assert.ok(Math.abs(bytes.duration - frames / 30) < 0.1, `${bytes.duration} s, ${frames} frames`);
    assert.ok(Number(film.start_time) < 0.01, `the recording starts at ${film.start_time}`);
    // Every frame decodes.
    assert.equal(execFileSync('ffmpeg', ['-v', 'error', '-i', file, '-f', 'null', '-'], { stdio: ['ignore', 'ignore', 'pipe'] })?.length ?? 0, 0);
    await page.context().close();
  }
});

test('the buttons work', async (t) => {
  const { page } = await play(t, { attributes: 'controls' });
  const press = (name) => page.getByRole('button', { name, exact: true }).click();
  await press('Pause');
  await state(page, 'paused');
  await press('Play');
  await state(page, 'playing');
  await press('Show statistics');
  await page.waitForFunction(() => document.querySelector('berry-mse').shadowRoot.querySelector('.overlay').textContent.includes('run-ahead'));
  const saved = page.waitForEvent('download');
  await press('Save snapshot');
  assert.match((await saved).suggestedFilename(), /^camera\.png$/);
  await press('Record');
  await sleep(500);
  const film = page.waitForEvent('download');
  await press('Record');
  assert.match((await film).suggestedFilename(), /^camera\.mp4$/);
  assert.deepEqual(page.complaints, []);
});

test('the type declarations name all public members, and nothing else', async (t) => {
  const { page } = await play(t, { wait: null });
  await page.waitForFunction(() => customElements.get('berry-mse'));
  const there = await page.evaluate(() => Object.getOwnPropertyNames(customElements.get('berry-mse').prototype)
    .filter((name) => name !== 'constructor' && !/Callback$/.test(name)));
  const types = readFileSync(join(web, 'berrymse.d.ts'), 'utf8');
  const [, body] = types.match(/class BerryMse extends HTMLElement \{\n([\s\S]*?)\n\}/);
  const named = [...body.matchAll(/^  (?:readonly )?(\w+)(?:[:(?<])/gm)].map(([, name]) => name)
    .filter((name) => name !== 'addEventListener');
  assert.deepEqual([...new Set(named)].sort(), there.sort());
});

test('shows why no picture is available on a page of another site', async (t) => {
  const other = await site((path) => (path === '/' ? html() : undefined));
  t.after(other.stop);
  const origin = `http://${otherHost}:${other.port}`;
  const broken = '[[camera]]\nname = "front"\nsource = { command = ["no-such-program"] }\n';
  let server;
  const html = () => `<!doctype html><link rel="icon" href="data:,"><script type="module" src="${server.url}berrymse.js"></script>
    <berry-mse src="${server.url}live/front" style="width: 640px; height: 360px"></berry-mse>`;
  for (const [config, words] of [[`[server]\norigins = ["${origin}"]\n${broken}`, 'no-such-program'],
    [broken, 'does not allow this page']]) {
    server = await serve(config);
    t.after(server.stop);
    const page = await open(browser, origin);
    await page.waitForFunction((words) => document.querySelector('berry-mse').message.includes(words), words);
    await page.context().close();
  }
});
