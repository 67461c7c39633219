// The page, in Debian's Chromium, against the real executable.

import { after, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
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

/** The frame number on the card changes by itself. */
async function moves(page) {
  const seen = new Set();
  for (let tries = 0; tries < 200 && seen.size < 5; tries++) {
    const number = await frameNumber(page);
    if (number !== null) seen.add(number); // null: between two frames, or while it starts
    await sleep(50);
  }
  assert.ok(seen.size >= 5, `the picture moves: ${[...seen]}`);
}

test('the test card plays: every frame is shown, and time goes on', async (t) => {
  const server = await serve();
  t.after(server.stop);
  const page = await open(browser, server.url);
  await state(page, 'playing');
  await sleep(2000); // the start is over
  const sample = async () => ({ sent: (await server.status()).cameras[0].frames, ...(await video(page)) });
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
  assert.ok(sent > 550, `30 frames a second for 20 s, not ${sent}`);
  assert.ok(Math.abs(shown - sent) <= sent * 0.02, `${sent} frames sent, ${shown} shown`);
  assert.ok(after.currentTime - before.currentTime > 19);
  // Frame numbers go up (modulo 300) by themselves, by about 3 every 100 ms.
  const readable = numbers.filter((number) => number !== null);
  assert.ok(readable.length > numbers.length * 0.95, `${readable.length} of ${numbers.length} read`);
  const steps = readable.slice(1).map((number, n) => (number - readable[n] + 300) % 300);
  assert.ok(steps.every((step) => step < 150), `never back: ${steps}`);
  const sum = steps.reduce((sum, step) => sum + step, 0);
  assert.ok(Math.abs(sum - sent) < 30, `${sum} frames by their numbers, ${sent} sent`);
  assert.deepEqual(page.complaints, []);
  await page.screenshot({ path: join(results, 'playing.png') });
});

test('the card tells the time: the number on it is that of the wall clock', async (t) => {
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
  behind.sort((a, b) => a - b);
  const median = behind[behind.length >> 1];
  t.diagnostic(`${median} frames behind the clock`);
  assert.ok(median < 15, `at most half a second behind: ${behind}`);
});

test('a page made for the Go BerryMSE plays unchanged', async (t) => {
  const server = await serve();
  t.after(server.stop);
  const pages = [['our own, from the description', new URL('.', import.meta.url).pathname, 'old-page.html']];
  const original = process.env.BERRYMSE_GO_PAGE;
  if (original) pages.push(['the original', original, 'index.html']);
  else t.diagnostic('the original page is not at hand (BERRYMSE_GO_PAGE)');
  for (const [name, folder, index] of pages) {
    const other = await site(files(folder, index), server.port);
    t.after(other.stop);
    const page = await open(browser, `http://${host}:${other.port}/`);
    await page.waitForFunction(() => document.querySelector('video').currentTime > 0);
    const { currentTime } = await video(page);
    await moves(page);
    await sleep(3000);
    const later = await video(page);
    assert.ok(later.currentTime - currentTime > 2.5, name);
    assert.ok(later.total > 80, `${name}: ${later.total} frames`);
    if (name.startsWith('our own')) {
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

test('the server restarts: the picture comes back by itself', async (t) => {
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

test('no picture: the page says in words why', async (t) => {
  const server = await serve('[[camera]]\nname = "front"\nsource = { command = ["no-such-program"] }\n');
  t.after(server.stop);
  const phone = { viewport: { width: 390, height: 844 }, colorScheme: 'light' };
  const page = await open(browser, server.url, phone);
  await page.waitForFunction(() => document.querySelector('berry-mse').message.includes('no-such-program'));
  await page.screenshot({ path: join(results, 'no-camera.png') });
  assert.deepEqual(page.complaints, []);
});

test('under a name it does not know, the page says what to do', async (t) => {
  const server = await serve();
  t.after(server.stop);
  const page = await open(browser, `http://${publicHost}:${server.port}/`);
  await page.waitForFunction(() => document.querySelector('berry-mse').message.includes('hosts = ['));
});

test('the size changes in mid-stream: the page plays on', async (t) => {
  // Half a second of the clip, then a command that starts again: other parameters come from ffmpeg.
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
  await sleep(1500);
  assert.ok((await video(page)).total > total + 20);
  assert.deepEqual(page.complaints, []);
});

test('a mistake in the configuration is said, and the settings are a click away', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'berrymse-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const good = join(folder, 'good.toml'); // what an appliance keeps of what was right last
  writeFileSync(good, '[[camera]]\nsource = "test-card"\n');
  const server = await serve('[[camera]]\nwidht = 640\n', 0, ['--last-good', good]);
  t.after(server.stop);
  for (const viewport of [{ width: 1280, height: 800 }, { width: 390, height: 844 }]) {
    const page = await open(browser, server.url, { viewport });
    await state(page, 'playing');
    await page.getByText(':2:1: no such key: `widht`').waitFor();
    await page.screenshot({ path: join(results, `mistake-${viewport.width}.png`) });
    assert.deepEqual(page.complaints, []);
    await page.getByRole('link', { name: 'Settings' }).click();
    await page.getByRole('alert').getByText('`widht`').waitFor();
    assert.ok(page.url().endsWith('/settings.html'));
  }
});

test('with a password: asked for once, then the picture plays', async (t) => {
  const server = await serve('[server]\npassword = "berry"\n[[camera]]\nsource = "test-card"\n');
  t.after(server.stop);
  const page = await open(browser, server.url, { httpCredentials: { username: 'me', password: 'berry' } });
  await state(page, 'playing');
  await moves(page);
  const stranger = await open(browser, 'about:blank');
  const answer = await stranger.goto(server.url).catch((error) => error);
  assert.ok(answer instanceof Error || answer.status() === 401, 'nobody else gets in');
});

test('two cameras: the page shows the one that is chosen', async (t) => {
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

test('the element works inside a page of another site that is allowed', async (t) => {
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
