// <berry-mse> in Firefox, in WebKit, and in WebKit with the interfaces of an iPhone (ManagedMediaSource
// instead of MediaSource): playback, and recovery from every kind of interruption. These tests wait for
// states and count frames; ./ci/bench delay measures times.

import { after, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { camera, material } from './camera.mjs';
import { element, first, notes, pages, rows } from './delay.mjs';
import { engines } from './engines.mjs';
import { clip, host, open, serve, site, sleep, state } from './lib.mjs';

// Key frames every two seconds, as cameras send them by default: WebKit catches up only at key frames.
let stuff;
before(async () => { stuff = await material(60); });

/** Records all errors, because WebKit's driver does not report them. */
const complaints = () => {
  window.complaints = [];
  // Scripts that fail or cannot be loaded, but not the element's error events.
  addEventListener('error', ({ message, target }) => {
    if (target === window || target.tagName === 'SCRIPT') window.complaints.push(message ?? `${target.src} failed`);
  }, true);
  addEventListener('unhandledrejection', ({ reason }) => window.complaints.push(String(reason)));
  for (const name of ['error', 'warn']) {
    const say = console[name];
    console[name] = (...words) => { window.complaints.push(words.join(' ')); say(...words); };
  }
};
/** Records the element's error events and every age. */
const sayings = () => {
  window.errors = [];
  window.ages = [];
  document.addEventListener('DOMContentLoaded', () => {
    const element = document.querySelector('berry-mse');
    element.addEventListener('error', ({ detail }) => window.errors.push(detail.message));
    element.addEventListener('stats', ({ detail }) => { if (detail.age !== null) window.ages.push(detail.age); });
  });
};
const iPhone = () => {
  delete window.MediaSource;
  // WebCodecs is not available on pages loaded over plain HTTP.
  delete window.VideoDecoder;
  const { ManagedMediaSource } = window;
  window.ManagedMediaSource = class extends ManagedMediaSource {
    constructor() { super(); window.managed = this; }
  };
};
/** WebKit treats local addresses as secure contexts, and would use WebCodecs. */
const plain = () => { delete window.VideoDecoder; };

/** Maximum age of a live picture, in ms: less than the backlog of 59 frames, more than a busy machine adds. */
const LIVE_AGE_MS = 1000;

for (const [name, { engine, scripts, address, policy }] of Object.entries({
  Firefox: { engine: 'firefox', scripts: [], address: host, policy: 'run-ahead' },
  WebKit: { engine: 'webkit', scripts: [plain], address: '127.0.0.1', policy: 'nudge' },
  'WebKit as on an iPhone': { engine: 'webkit', scripts: [iPhone], address: '127.0.0.1', policy: 'nudge' },
})) {
  test(name, { timeout: 600_000 }, async (t) => {
    const html = (attributes) => first(element(attributes), complaints, notes, sayings, ...scripts);
    const show = async (t, port) => {
      // One browser for each page, because a second page in the same Firefox does not always open.
      const browser = await engines[engine]();
      t.after(browser.close);
      return open(browser, `http://${address}:${port}/`);
    };
    /** Starts the camera of camera.mjs, opens its page and waits until it plays. */
    const play = async (t, options) => {
      const cam = await camera(stuff, { history: 59, pages: pages(html(), stuff.script), ...options });
      t.after(cam.stop);
      const page = await show(t, cam.port);
      await state(page, 'playing');
      return { cam, page };
    };
    /** Opens a page on another web server that plays a stream from the real server. */
    const watch = async (t, server) => {
      const other = await site(pages(html(), stuff.script), server.port);
      t.after(other.stop);
      const page = await show(t, other.port);
      await state(page, 'playing');
      return page;
    };
    const get = (page, expression) => page.evaluate(`document.querySelector('berry-mse').${expression}`);
    const quiet = async (page) => {
      const all = [...page.complaints, ...await page.evaluate('window.complaints')];
      assert.deepEqual(all, []);
      return page.evaluate('window.errors');
    };
    /** Waits until a live picture is shown after `moment` (of this process's clock). */
    const live = async (page, cam, moment = performance.now()) => {
      for (const until = performance.now() + 20_000; performance.now() < until; await sleep(50)) {
        if ((await rows(page, cam)).some((row) => row.at > moment && row.age < LIVE_AGE_MS)) return;
      }
      throw new Error(`playback is not live again: ${(await rows(page, cam)).slice(-5).map(({ age }) => Math.round(age))}`);
    };
    /** Waits until more pictures have been shown. */
    const next = async (page) => {
      const noted = await page.evaluate('window.shown.length');
      await page.waitForFunction(`window.shown.length > ${noted + 10}`);
    };

    await t.test('plays, and reports the age of its pictures', async (t) => {
      const { cam, page } = await play(t);
      await page.waitForFunction('window.ages.length >= 8', undefined, { timeout: 40_000 });
      const ages = (await page.evaluate('window.ages')).slice(-7).sort((a, b) => a - b);
      const real = (await rows(page, cam)).filter(({ age }) => age !== undefined).slice(-150).map(({ age }) => age);
      real.sort((a, b) => a - b);
      t.diagnostic(`median age: ${ages[3].toFixed(1)} ms reported, ${real[real.length >> 1].toFixed(1)} ms measured`);
      assert.ok(ages[3] > 0 && ages[3] < LIVE_AGE_MS, `${ages}`);
      assert.ok(ages[3] > real[0] - 2 && ages[3] < real.at(-1) + 2, `${ages[3]} of ${real[0]} to ${real.at(-1)}`);
      const { policy: used, width } = await get(page, 'stats');
      assert.deepEqual([used, width], [policy, 1280]);
      const how = await page.evaluate(() => {
        const { disableRemotePlayback, playsInline, defaultMuted } = document.querySelector('berry-mse').video;
        return { disableRemotePlayback, playsInline, defaultMuted, source: window.managed?.readyState, other: typeof MediaSource };
      });
      // Not `muted`: WebKitGTK resets it for a stream without sound.
      assert.deepEqual([how.playsInline, how.defaultMuted], [true, true]);
      if (scripts.includes(iPhone)) {
        assert.deepEqual([how.source, how.other, how.disableRemotePlayback], ['open', 'undefined', true]);
      }
      // WebKit sometimes fails at the start of playback, and the element restarts it.
      const broken = await quiet(page);
      if (engine === 'firefox') assert.deepEqual(broken, []);
      else t.diagnostic(`${broken.length} restarts`);
    });

    await t.test('recovers from a network stall', async (t) => {
      const { cam, page } = await play(t);
      await live(page, cam);
      for (let n = 0; n < 3; n++) {
        await cam.stall(1400);
        await live(page, cam);
        await sleep(1500);
      }
      await quiet(page);
    });

    await t.test('disconnects while the page is hidden, and is live again when it is shown', async (t) => {
      const { cam, page } = await play(t);
      await page.hide(true);
      await page.waitForFunction('document.hidden');
      for (const until = Date.now() + 20_000; cam.viewers.size && Date.now() < until; await sleep(50));
      assert.equal(cam.viewers.size, 0, 'the page disconnects');
      const moment = performance.now();
      await page.hide(false);
      await live(page, cam, moment);
      assert.equal(await get(page, 'state'), 'playing');
      await quiet(page);
    });

    await t.test('recovers when the server is killed and restarted', async (t) => {
      let server = await serve();
      t.after(() => server.stop());
      const page = await watch(t, server);
      server.kill();
      await state(page, 'reconnecting');
      server = await serve('', server.port);
      await state(page, 'playing');
      await next(page);
      // Browsers report the unreachable server in the console; the element must not report it.
      if (engine === 'firefox') assert.deepEqual(await page.evaluate('window.errors'), []);
    });

    await t.test('recovers when the camera disappears and returns', async (t) => {
      const folder = mkdtempSync(join(tmpdir(), 'berrymse-'));
      t.after(() => rmSync(folder, { recursive: true, force: true }));
      const file = join(folder, 'plugged-in'); // the camera plays while this file exists
      const ffmpeg = `ffmpeg -v error -re -stream_loop -1 -i ${clip} -c copy -flush_packets 1 -f h264 -`;
      const script = `while [ -e ${file} ]; do ${ffmpeg} & p=$!; while [ -e ${file} ]; do sleep .05; done; kill $p; wait $p; done; exit 1`;
      writeFileSync(file, '');
      const server = await serve(`[[camera]]\nsource = { command = ${JSON.stringify(['sh', '-c', script])} }\n`);
      t.after(server.stop);
      const page = await watch(t, server);
      rmSync(file);
      await state(page, 'waiting');
      writeFileSync(file, '');
      await next(page);
      await state(page, 'playing');
      if (engine === 'firefox') assert.equal((await get(page, 'stats')).reconnects, 0, 'the connection remains');
      await quiet(page);
    });

    await t.test('keeps playing when the size changes in mid-stream', async (t) => {
      const make = (size) => `ffmpeg -v error -re -f lavfi -i testsrc2=size=${size}:rate=30 -c:v libx264 -preset ultrafast `
        + '-tune zerolatency -g 30 -t 8 -flush_packets 1 -f h264 -';
      const script = `${make('640x480')}; ${make('800x600')}; ${make('640x480')}; sleep 60`;
      const server = await serve(`[server]\norigins = ["*"]\n[[camera]]\nsource = { command = ${JSON.stringify(['sh', '-c', script])} }\n`);
      t.after(server.stop);
      const page = await watch(t, server);
      for (const width of [640, 800, 640]) {
        await page.waitForFunction((width) => {
          const { stats, video } = document.querySelector('berry-mse');
          return stats?.width === width && video.videoWidth === width;
        }, width);
      }
      await next(page);
      await quiet(page);
    });
  });
}
