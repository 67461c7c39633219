// <berry-mse> in Firefox and WebKit, and in WebKit with what an iPhone has (ManagedMediaSource and no
// MediaSource): it plays, and is live again by itself after whatever happened.

import { after, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { camera, material } from './camera.mjs';
import { element, first, notes, pages, rows } from './delay.mjs';
import { engines } from './engines.mjs';
import { clip, host, open, serve, site, sleep, state } from './lib.mjs';

// Key frames every two seconds, as a camera of ours has them: WebKit becomes live again at one.
let stuff;
before(async () => { stuff = await material(60); });

/** Notes what goes wrong: WebKit's driver does not tell. */
const complaints = () => {
  window.complaints = [];
  // Scripts that fail, or do not come; what the element says of broken pictures is another matter.
  addEventListener('error', ({ message, target }) => {
    if (target === window || target.tagName === 'SCRIPT') window.complaints.push(message ?? `${target.src} failed`);
  }, true);
  addEventListener('unhandledrejection', ({ reason }) => window.complaints.push(String(reason)));
  for (const name of ['error', 'warn']) {
    const say = console[name];
    console[name] = (...words) => { window.complaints.push(words.join(' ')); say(...words); };
  }
};
/** Notes what the element says of broken things, and every age. */
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
  // No WebCodecs either, as on any page of plain HTTP.
  delete window.VideoDecoder;
  const { ManagedMediaSource } = window;
  window.ManagedMediaSource = class extends ManagedMediaSource {
    constructor() { super(); window.managed = this; }
  };
};
/** WebKit takes every address here for a secure one: without this, it would use WebCodecs. */
const plain = () => { delete window.VideoDecoder; };

// `fresh`: how old a picture may be that counts as live. The age itself is for ./ci/bench delay: others use this machine.
for (const [name, { engine, scripts, address, policy, fresh }] of Object.entries({
  Firefox: { engine: 'firefox', scripts: [], address: host, policy: 'run-ahead', fresh: 150 },
  WebKit: { engine: 'webkit', scripts: [plain], address: '127.0.0.1', policy: 'nudge', fresh: 200 },
  'WebKit as on an iPhone': { engine: 'webkit', scripts: [iPhone], address: '127.0.0.1', policy: 'nudge', fresh: 200 },
})) {
  test(name, { timeout: 150_000 }, async (t) => {
    const html = (attributes) => first(element(attributes), complaints, notes, sayings, ...scripts);
    const show = async (t, port) => {
      // One for each: a second page in the same Firefox does not always come.
      const browser = await engines[engine]();
      t.after(browser.close);
      return open(browser, `http://${address}:${port}/`);
    };
    /** A camera of our own and its page, which plays. */
    const play = async (t, options) => {
      const cam = await camera(stuff, { history: 59, pages: pages(html()), ...options });
      t.after(cam.stop);
      const page = await show(t, cam.port);
      await state(page, 'playing');
      return { cam, page };
    };
    /** The page on a server of its own, which plays what the real server has. */
    const watch = async (t, server) => {
      const other = await site(pages(html()), server.port);
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
    /** Milliseconds from `moment` (of our clock) to the first picture that is live. */
    const live = async (page, cam, moment) => {
      for (const until = performance.now() + 15_000; performance.now() < until; await sleep(50)) {
        const found = (await rows(page, cam)).find((row) => row.at > moment && row.age < fresh);
        if (found) return found.at - moment;
      }
      throw new Error(`it is not live again: ${(await rows(page, cam)).slice(-5).map(({ age }) => Math.round(age))}`);
    };
    /** Milliseconds until another picture is shown. */
    const next = async (page) => {
      const moment = performance.now();
      const noted = await page.evaluate('window.shown.length');
      await page.waitForFunction(`window.shown.length > ${noted + 1}`);
      return performance.now() - moment;
    };
    const within = (t, limit, time) => {
      t.diagnostic(`after ${Math.round(time)} ms`);
      assert.ok(time < limit, `${time}`);
    };

    await t.test('it plays, and knows how old its pictures are', async (t) => {
      const { cam, page } = await play(t);
      await page.waitForFunction('window.ages.length >= 8', undefined, { timeout: 40_000 });
      const ages = (await page.evaluate('window.ages')).slice(-7).sort((a, b) => a - b);
      const real = (await rows(page, cam)).filter(({ age }) => age !== undefined).slice(-150).map(({ age }) => age);
      real.sort((a, b) => a - b);
      t.diagnostic(`median age ${ages[3].toFixed(1)} ms; of every picture: ${real[real.length >> 1].toFixed(1)} ms`);
      assert.ok(ages[3] > 0 && ages[3] < fresh, `${ages}`);
      assert.ok(ages[3] > real[0] - 2 && ages[3] < real.at(-1) + 2, `${ages[3]} of ${real[0]} to ${real.at(-1)}`);
      const { policy: used, width } = await get(page, 'stats');
      assert.deepEqual([used, width], [policy, 1280]);
      const how = await page.evaluate(() => {
        const { disableRemotePlayback, playsInline, defaultMuted } = document.querySelector('berry-mse').video;
        return { disableRemotePlayback, playsInline, defaultMuted, source: window.managed?.readyState, old: typeof MediaSource };
      });
      // Not `muted`: WebKitGTK takes it back where there is no sound.
      assert.deepEqual([how.playsInline, how.defaultMuted], [true, true]);
      if (scripts.includes(iPhone)) {
        assert.deepEqual([how.source, how.old, how.disableRemotePlayback], ['open', 'undefined', true]);
      }
      // WebKit fails now and then as it begins, and begins again.
      const broken = await quiet(page);
      if (engine === 'firefox') assert.deepEqual(broken, []);
      else t.diagnostic(`it began again ${broken.length} times`);
    });

    await t.test('the network stalls for half a second', async (t) => {
      const { cam, page } = await play(t);
      await live(page, cam, performance.now());
      const times = [];
      for (let n = 0; n < 3; n++) {
        await cam.stall(500);
        times.push(await live(page, cam, performance.now()));
        await sleep(1500);
      }
      t.diagnostic(`live after ${times.map(Math.round)} ms`);
      assert.ok(Math.min(...times) < (engine === 'firefox' ? 300 : 2500), `${times}`);
      await quiet(page);
    });

    await t.test('the page is hidden and shown', async (t) => {
      const { cam, page } = await play(t);
      await page.hide(true);
      await page.waitForFunction('document.hidden');
      for (const until = Date.now() + 15_000; cam.viewers.size && Date.now() < until; await sleep(50));
      assert.equal(cam.viewers.size, 0, 'it hangs up');
      const moment = performance.now();
      await page.hide(false);
      within(t, 3000, await live(page, cam, moment));
      assert.equal(await get(page, 'state'), 'playing');
      await quiet(page);
    });

    await t.test('the server is killed and comes again', async (t) => {
      let server = await serve();
      t.after(() => server.stop());
      const page = await watch(t, server);
      server.kill();
      await state(page, 'reconnecting');
      server = await serve('', server.port);
      const moment = performance.now();
      await state(page, 'playing');
      await next(page);
      within(t, 4000, performance.now() - moment);
      // A server that is away is no fault of the page: browsers say so in the console.
      if (engine === 'firefox') assert.deepEqual(await page.evaluate('window.errors'), []);
    });

    await t.test('the camera goes and comes again', async (t) => {
      const folder = mkdtempSync(join(tmpdir(), 'berrymse-'));
      t.after(() => rmSync(folder, { recursive: true, force: true }));
      const file = join(folder, 'plugged-in'); // plays while it is there
      const ffmpeg = `ffmpeg -v error -re -stream_loop -1 -i ${clip} -c copy -flush_packets 1 -f h264 -`;
      const script = `while [ -e ${file} ]; do ${ffmpeg} & p=$!; while [ -e ${file} ]; do sleep .05; done; kill $p; wait $p; done; exit 1`;
      writeFileSync(file, '');
      const server = await serve(`[[camera]]\nsource = { command = ${JSON.stringify(['sh', '-c', script])} }\n`);
      t.after(server.stop);
      const page = await watch(t, server);
      rmSync(file);
      await state(page, 'waiting');
      writeFileSync(file, '');
      const frames = async () => (await server.status()).cameras[0].frames;
      for (const before = await frames(); await frames() === before; await sleep(10));
      within(t, 2000, await next(page));
      await state(page, 'playing');
      if (engine === 'firefox') assert.equal((await get(page, 'stats')).reconnects, 0, 'the connection stays');
      await quiet(page);
    });

    await t.test('the size changes in mid-stream', async (t) => {
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
      const gaps = await page.evaluate(() => window.shown.slice(1).map(([, at], n) => at - window.shown[n][1]).slice(20));
      within(t, 2000, Math.max(...gaps));
      await quiet(page);
    });
  });
}
