// The live view in Chromium, with the real server.

import { after, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  browser as launch, clip, files, frameNumber, host, open, otherHost, publicHost,
  results, serve, site, sleep, state,
  video,
} from './lib.mjs';

let browser;
before(async () => { browser = await launch(); });
after(async () => { await browser?.close(); });

/** Waits until the frame number on the test card has changed a few times. */
async function moves(page) {
  const seen = new Set();
  for (let tries = 0; tries < 200 && seen.size < 5; tries++) {
    const number = await frameNumber(page);
    if (number !== null) seen.add(number); // null between two frames and before the first
    await sleep(50);
  }
  assert.ok(seen.size >= 5, `the picture moves: ${[...seen]}`);
}

test('the test card plays: all frames that are sent, in order', async (t) => {
  const server = await serve();
  t.after(server.stop);
  const page = await open(browser, server.url);
  await state(page, 'playing');
  await sleep(2000); // let playback settle
  const sample = async () => ({ at: performance.now(), sent: (await server.status()).cameras[0].frames, ...(await video(page)) });
  const before = await sample();
  const numbers = [];
  const end = Date.now() + 20_000;
  while (Date.now() < end) {
    numbers.push(await frameNumber(page));
    await sleep(100);
  }
  const after = await sample();
  const sent = after.sent - before.sent;
  const shown = after.total - before.total;
  t.diagnostic(`sent ${sent}, shown ${shown}, lag ${after.lag.toFixed(3)} s`);
  const seconds = (after.at - before.at) / 1000;
  assert.ok(sent > 25 * seconds, `30 frames per second for ${seconds} s, not ${sent}`);
  // The counters are read at slightly different times: allow one second.
  assert.ok(Math.abs(shown - sent) <= 30, `${sent} frames sent, ${shown} shown`);
  assert.ok(Math.abs(after.currentTime - before.currentTime - sent / 30) <= 1);
  // Frame numbers (modulo 300) only increase.
  const readable = numbers.filter((number) => number !== null);
  assert.ok(readable.length > numbers.length * 0.8, `${readable.length} of ${numbers.length} read`);
  const steps = readable.slice(1).map((number, n) => (number - readable[n] + 300) % 300);
  assert.ok(steps.every((step) => step < 150), `in order: ${steps}`);
  const sum = steps.reduce((sum, step) => sum + step, 0);
  assert.ok(Math.abs(sum - sent) < 30, `${sum} frames by their numbers, ${sent} sent`);
  assert.deepEqual(page.complaints, []);
  await page.screenshot({ path: join(results, 'playing.png') });
});

test('the frame number on the test card matches the wall clock', async (t) => {
  const server = await serve();
  t.after(server.stop);
  const page = await open(browser, server.url);
  await state(page, 'playing');
  await sleep(2000);
  const behind = [];
  for (let n = 0; n < 20; n++) {
    const number = await frameNumber(page);
    const now = Math.floor((Date.now() % 10_000) * 30 / 1000);
    if (number !== null) behind.push((now - number + 300) % 300);
    await sleep(73);
  }
  t.diagnostic(`${behind} frames behind the clock`);
  // Allows one second. Without synchronization, the difference could be any number up to 300.
  assert.ok(Math.min(...behind) < 30 && behind.every((frames) => frames < 150), `${behind}`);
});

test('a page for the Go BerryMSE plays unchanged', async (t) => {
  const server = await serve();
  t.after(server.stop);
  const pages = [['ours, written from the documentation', new URL('.', import.meta.url).pathname, 'old-page.html']];
  const original = process.env.BERRYMSE_GO_PAGE;
  if (original) pages.push(['the original', original, 'index.html']);
  else t.diagnostic('without the original page (BERRYMSE_GO_PAGE)');
  for (const [name, folder, index] of pages) {
    const other = await site(files(folder, index), server.port);
    t.after(other.stop);
    const page = await open(browser, `http://${host}:${other.port}/`);
    await page.waitForFunction(() => document.querySelector('video').currentTime > 0);
    const { currentTime } = await video(page);
    await moves(page);
    await page.waitForFunction((start) => {
      const video = document.querySelector('video');
      return video.currentTime - start > 2.5 && video.getVideoPlaybackQuality().totalVideoFrames > 80;
    }, currentTime);
    const later = await video(page);
    if (name.startsWith('ours')) {
      const kinds = await page.evaluate(() => window.kinds);
      assert.equal(kinds.init, 1);
      assert.equal(kinds.unknown, 0);
      assert.ok(kinds.key >= 3 && kinds.other > 60, JSON.stringify(kinds));
      assert.deepEqual(page.complaints, []);
    }
    t.diagnostic(`${name}: ${later.total} frames`);
    await page.context().close();
  }
});

test('the picture returns after the server restarts', async (t) => {
  const server = await serve();
  const page = await open(browser, server.url);
  await state(page, 'playing');
  await server.stop();
  await state(page, 'reconnecting');
  await sleep(1000);
  await page.screenshot({ path: join(results, 'reconnecting.png') });
  const again = await serve('', server.port);
  t.after(again.stop);
  await state(page, 'playing');
  await moves(page);
});

test('without a picture, the page shows the reason', async (t) => {
  const server = await serve('[[camera]]\nname = "front"\nsource = { command = ["no-such-program"] }\n');
  t.after(server.stop);
  const phone = { viewport: { width: 390, height: 844 }, colorScheme: 'light' };
  const page = await open(browser, server.url, phone);
  await page.waitForFunction(() => document.querySelector('berry-mse').message.includes('no-such-program'));
  await page.screenshot({ path: join(results, 'no-camera.png') });
  assert.deepEqual(page.complaints, []);
});

test('under an unknown host name, the browser shows what to do and no picture', async (t) => {
  const server = await serve();
  t.after(server.stop);
  const page = await open(browser, `http://${publicHost}:${server.port}/`);
  const text = await page.evaluate(() => document.body.textContent);
  assert.ok(text.includes(`hosts = ["${publicHost}"]`), text);
  assert.equal(await page.evaluate(() => document.querySelector('berry-mse')), null);
});

test('the size changes in mid-stream, and playback continues', async (t) => {
  const small = '-f lavfi -i testsrc2=size=640x480:rate=30 -c:v libx264 -tune zerolatency -g 30';
  const large = '-f lavfi -i testsrc2=size=1280x720:rate=30 -c:v libx264 -tune zerolatency -g 30';
  const one = (input) => `ffmpeg -v error -re ${input} -t 4 -flush_packets 1 -f h264 -`;
  const command = JSON.stringify(['sh', '-c', `${one(small)}; ${one(large)}; sleep 60`]);
  const server = await serve(`[[camera]]\nsource = { command = ${command} }\n`);
  t.after(server.stop);
  const page = await open(browser, server.url);
  await page.waitForFunction(() => document.querySelector('berry-mse').video.videoWidth === 640);
  await page.waitForFunction(() => document.querySelector('berry-mse').video.videoWidth === 1280);
  const { total } = await video(page);
  await page.waitForFunction((total) =>
    document.querySelector('berry-mse').video.getVideoPlaybackQuality().totalVideoFrames > total + 20, total);
  assert.deepEqual(page.complaints, []);
});

test('an error in the configuration is shown, with a link to the settings', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'berrymse-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const good = join(folder, 'good.toml'); // the last valid configuration, as an appliance keeps it
  writeFileSync(good, '[[camera]]\nsource = "test-card"\n');
  const server = await serve('[[camera]]\nwidht = 640\n', 0, ['--last-good', good]);
  t.after(server.stop);
  for (const viewport of [{ width: 1280, height: 800 }, { width: 390, height: 844 }]) {
    const page = await open(browser, server.url, { viewport });
    await state(page, 'playing');
    await page.getByText('`widht`').waitFor();
    await page.screenshot({ path: join(results, `mistake-${viewport.width}.png`) });
    assert.deepEqual(page.complaints, []);
    await page.getByRole('link', { name: 'Settings' }).click();
    await page.getByRole('alert').getByText('`widht`').waitFor();
    assert.ok(page.url().endsWith('/settings.html'));
  }
});

test('a camera that is missing since an update is shown, with a link to the settings', async (t) => {
  const data = mkdtempSync(join(tmpdir(), 'berrymse-'));
  t.after(() => rmSync(data, { recursive: true, force: true }));
  mkdirSync(join(data, 'state'));
  writeFileSync(join(data, 'state/proved-A'), '0.1.0 100\n');
  writeFileSync(join(data, 'state/cameras-A'),
    JSON.stringify({ proved: '0.1.0 100', cameras: [{ name: 'front', kind: 'raspberry-pi' }] }));
  const server = await serve('[[camera]]\nname = "front"\n', 0, ['--data', data, '--slot', 'B']);
  t.after(server.stop);
  const page = await open(browser, server.url);
  await state(page, 'playing');
  await page.getByRole('alert').getByText('Missing since the update: front.').waitFor();
  await page.screenshot({ path: join(results, 'missing-camera.png') });
  rmSync(join(data, 'state/cameras-A'));
  await page.getByRole('alert').waitFor({ state: 'hidden' });
});

test('with a password, the page plays after one prompt', async (t) => {
  const server = await serve('[server]\npassword = "berry"\n[[camera]]\nsource = "test-card"\n');
  t.after(server.stop);
  const page = await open(browser, server.url, { httpCredentials: { username: 'me', password: 'berry' } });
  await state(page, 'playing');
  await moves(page);
  const stranger = await open(browser, 'about:blank');
  const answer = await stranger.goto(server.url).catch((error) => error);
  assert.ok(answer instanceof Error || answer.status() === 401, 'access is denied without a password');
});

test('the page shows the selected one of two cameras', async (t) => {
  const play = JSON.stringify(['ffmpeg', '-v', 'error', '-re', '-stream_loop', '-1', '-i', clip,
    '-c', 'copy', '-flush_packets', '1', '-f', 'h264', '-']);
  const server = await serve(
    `[[camera]]\nname = "front"\nsource = "test-card"\n[[camera]]\nname = "back"\nsource = { command = ${play} }\n`);
  t.after(server.stop);
  const page = await open(browser, server.url);
  await state(page, 'playing');
  await page.getByRole('link', { name: 'back' }).click();
  await page.waitForFunction(() => document.title.startsWith('back'));
  await state(page, 'playing');
  await moves(page);
  const { cameras } = await server.status();
  assert.deepEqual(cameras.map(({ viewers }) => viewers), [0, 1]);
  await page.screenshot({ path: join(results, 'two-cameras.png') });
});

test('the element plays on another site only if the site is allowed', async (t) => {
  let server;
  const page = () => `<!doctype html><link rel="icon" href="data:,">
    <script type="module" src="${server.url}berrymse.js"></script>
    <berry-mse src="${server.url}live/front" style="width: 640px; height: 360px"></berry-mse>`;
  const other = await site((path) => (path === '/' ? page() : undefined));
  t.after(other.stop);
  const origin = `http://${otherHost}:${other.port}`;
  const camera = '[[camera]]\nname = "front"\nsource = "test-card"\n';
  for (const [config, wanted] of [[`[server]\norigins = ["${origin}"]\n`, 'playing'], ['', 'reconnecting']]) {
    server = await serve(config + camera);
    t.after(server.stop);
    await state(await open(browser, origin), wanted);
  }
});

test('everything before the first picture takes at most 16 kB', async (t) => {
  const server = await serve();
  t.after(server.stop);
  const page = await open(browser, server.url);
  await state(page, 'playing');
  const loaded = await page.evaluate(() => [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
    .map(({ name, transferSize, encodedBodySize, decodedBodySize }) =>
      ({ path: new URL(name).pathname, transferSize, encodedBodySize, decodedBodySize })));
  // The icon and the status request do not delay the picture.
  const needed = loaded.filter(({ path }) => path !== '/icon.svg' && path !== '/api/status');
  assert.deepEqual(needed.map(({ path }) => path).sort(), ['/', '/berrymse.js', '/page.css', '/page.js']);
  for (const { path, encodedBodySize, decodedBodySize } of needed) {
    assert.ok(encodedBodySize < decodedBodySize, `${path} is compressed`);
  }
  // The headers count, too.
  const sum = needed.reduce((sum, { transferSize }) => sum + transferSize, 0);
  t.diagnostic(`${sum} bytes: ${needed.map(({ path, transferSize }) => `${path} ${transferSize}`).join(', ')}`);
  assert.ok(sum > 5000 && sum <= 16_000, `${sum}`);
});
