// Shared by the browser tests: the real server, other web sites, Chromium, and the state of a page.

import { spawn } from 'node:child_process';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const root = fileURLToPath(new URL('../..', import.meta.url));
const target = process.env.CARGO_TARGET_DIR ?? join(root, 'target');
export const executable = process.env.BERRYMSE ?? join(target, 'release', 'berrymse');
export const clip = join(root, 'src/camera/test_card.h264');
export const results = join(root, 'tests/browser/results');
mkdirSync(results, { recursive: true });

/** A host name as on a home network. (On localhost, plain HTTP is a secure context.) */
export const host = 'berrymse.local';
/** The host name of another web site. */
export const otherHost = 'example.local';
/** A public DNS name that resolves to this machine. */
export const publicHost = 'cam.example.org';

/** Starts the server. `config` is TOML; `port` 0 selects a free port; `options` are additional arguments. */
export async function serve(config = '', port = 0, options = [], program = executable) {
  if (!existsSync(program)) throw new Error(`${program} is missing: run cargo build --release`);
  const folder = mkdtempSync(join(tmpdir(), 'berrymse-'));
  const file = join(folder, 'berrymse.toml');
  writeFileSync(file, config || '[[camera]]\nsource = "test-card"\n');
  const child = spawn(program, ['--config', file, '--listen', `127.0.0.1:${port}`, ...options]);
  let log = '';
  const started = new Promise((resolve, reject) => {
    child.stderr.on('data', (data) => {
      log += data;
      const found = log.match(/http:\/\/127\.0\.0\.1:(\d+)/);
      if (found) resolve(Number(found[1]));
    });
    child.once('exit', (code) => reject(new Error(`the server exited (${code}):\n${log}`)));
  });
  const listening = await started;
  return {
    port: listening,
    url: `http://${host}:${listening}/`,
    log: () => log,
    status: async () => (await fetch(`http://127.0.0.1:${listening}/api/status`)).json(),
    kill: () => { child.kill('SIGKILL'); },
    stop: async () => {
      if (child.exitCode === null && child.signalCode === null) {
        const ended = new Promise((resolve) => child.once('exit', resolve));
        child.kill('SIGTERM');
        await ended;
      }
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/**
 * Another web site: serves `page(path)`, and forwards WebSockets to the server at `port`. (Pages that
 * Playwright fulfills count as public, and may not open a WebSocket to a local address.)
 */
export async function site(page, port) {
  const server = createServer((request, response) => {
    const body = page(request.url);
    const kind = { js: 'text/javascript', css: 'text/css' }[request.url.split('.').pop()] ?? 'text/html';
    response.writeHead(body === undefined ? 404 : 200, { 'content-type': kind });
    response.end(body);
  });
  const sockets = new Set();
  server.on('connection', (socket) => sockets.add(socket));
  server.on('upgrade', (request, socket) => {
    const headers = request.rawHeaders.reduce(
      (text, part, n) => text + part + (n % 2 ? '\r\n' : ': '), '');
    const to = connect(port, '127.0.0.1');
    to.write(`GET ${request.url} HTTP/1.1\r\n${headers}\r\n`);
    socket.pipe(to).pipe(socket);
    for (const end of [socket, to]) end.on('error', () => { socket.destroy(); to.destroy(); });
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  return {
    port: server.address().port,
    stop: () => new Promise((resolve) => {
      server.close(resolve);
      for (const socket of sockets) socket.destroy(); // including upgraded ones
    }),
  };
}

/** Returns a page function for `site` that serves the files of a directory. */
export const files = (folder, index) => (path) => {
  const file = join(folder, path === '/' ? index : path);
  return existsSync(file) ? readFileSync(file) : undefined;
};

/** Starts Debian's Chromium, with options for machines without internet access and for running as root. */
export function browser() {
  const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']
    .find(existsSync);
  if (!executablePath) throw new Error('no Chromium: apt-get install chromium');
  return chromium.launch({
    executablePath,
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking',
      '--disable-component-update', '--disable-sync',
      `--host-resolver-rules=MAP ${host} 127.0.0.1, MAP ${otherHost} 127.0.0.1, MAP ${publicHost} 127.0.0.1`,
    ],
  });
}

/** Opens a page and collects all console warnings and errors. `before` runs in the page first. */
export async function open(browser, url, { before, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  if (before) await page.addInitScript(before);
  page.complaints = [];
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) page.complaints.push(message.text());
  });
  page.on('pageerror', (error) => page.complaints.push(String(error)));
  await page.goto(url);
  return page;
}

/** Makes the page believe that it is hidden or shown, because headless Chromium has no other tabs. */
export const hide = (page, hidden) => page.evaluate((hidden) => {
  Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
  Object.defineProperty(document, 'visibilityState', { value: hidden ? 'hidden' : 'visible', configurable: true });
  document.dispatchEvent(new Event('visibilitychange'));
}, hidden);

/** Waits until the element is in the given state. */
export const state = (page, wanted, timeout = 15000) =>
  page.waitForFunction((wanted) => document.querySelector('berry-mse').state === wanted, wanted, { timeout });

/** Returns the state of the video element. */
export const video = (page) => page.evaluate(() => {
  const video = document.querySelector('berry-mse')?.video ?? document.querySelector('video');
  const quality = video.getVideoPlaybackQuality();
  return {
    currentTime: video.currentTime,
    total: quality.totalVideoFrames,
    dropped: quality.droppedVideoFrames,
    width: video.videoWidth,
    lag: video.buffered.length ? video.buffered.end(video.buffered.length - 1) - video.currentTime : null,
  };
});

/** Reads the frame number on the test card; null if its parity is wrong. */
export const frameNumber = (page) => page.evaluate(() => {
  const video = document.querySelector('berry-mse')?.video ?? document.querySelector('video');
  const canvas = document.createElement('canvas');
  Object.assign(canvas, { width: 12, height: 1 });
  const context = canvas.getContext('2d', { willReadFrequently: true });
  // 12 blocks of 48x48 pixels at (352, 640): white, black, 9 bits, parity (see
  // ci/generate/testcard).
  for (let block = 0; block < 12; block++) {
    context.drawImage(video, 352 + 48 * block + 16, 656, 16, 16, block, 0, 1, 1);
  }
  const { data } = context.getImageData(0, 0, 12, 1);
  const bits = Array.from({ length: 12 }, (_, block) => Number(data[4 * block] > 127));
  const ones = bits.slice(2).reduce((sum, bit) => sum + bit, 0);
  if (bits[0] !== 1 || bits[1] !== 0 || ones % 2) return null;
  return bits.slice(2, 11).reduce((number, bit) => number * 2 + bit, 0);
});

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
