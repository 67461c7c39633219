// Drives Debian's Firefox and WebKit through the part of Playwright's interface (browser, context, page)
// that the tests use, so that the same code opens and observes a page in Chromium, Firefox and WebKit.
// Firefox speaks WebDriver BiDi over a WebSocket, and WebKit classic WebDriver over HTTP.

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { message, reader } from './camera.mjs';
import { host, otherHost, sleep } from './lib.mjs';

/** Starts a program in a separate process group. */
function start(command, args, env = {}) {
  const child = spawn(command, args, { detached: true, env: { ...process.env, ...env } });
  let log = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => { log += data; });
  child.on('error', (error) => { log += error; });
  const gone = new Promise((resolve) => { child.once('exit', resolve); });
  return {
    /** Waits until the output matches `pattern`, and returns the match. */
    said: async (pattern) => {
      for (const until = Date.now() + 30_000; ; await sleep(20)) {
        const found = log.match(pattern);
        if (found) return found;
        if (Date.now() > until || child.exitCode !== null) throw new Error(`${command} did not start:\n${log}`);
      }
    },
    stop: async () => {
      if (child.exitCode === null && child.signalCode === null) {
        process.kill(-child.pid, 'SIGTERM');
        await Promise.race([gone, sleep(3000)]);
      }
      try { process.kill(-child.pid, 'SIGKILL'); } catch { /* The group has already ended. */ }
    },
  };
}

/** Returns the script that evaluates a function with its argument, or an expression. The result is JSON. */
const script = (what, argument) => {
  const call = typeof what === 'function' ? `(${what})(${JSON.stringify(argument) ?? ''})` : `(${what})`;
  return `(async () => JSON.stringify({ value: await ${call} }))()`;
};

/** Returns a page with Playwright's interface, based on `run(script)`, `go(url)`, `hide(hidden)` and `close()`. */
function page({ run, go, hide, close }) {
  const listeners = { console: [], pageerror: [] };
  const self = {
    on: (event, listener) => listeners[event].push(listener),
    said: (type, text) => {
      for (const listener of listeners.console) listener({ type: () => type, text: () => text });
    },
    goto: go,
    evaluate: async (what, argument) => JSON.parse(await run(script(what, argument))).value,
    waitForFunction: async (what, argument, { timeout = 30_000 } = {}) => {
      for (const until = Date.now() + timeout; ; await sleep(30)) {
        // While the page is being replaced, evaluation fails.
        if (await self.evaluate(what, argument).catch(() => false)) return;
        if (Date.now() > until) throw new Error(`waited ${timeout} ms for ${what} (${JSON.stringify(argument)})`);
      }
    },
    /** Hides the page by opening another tab (Firefox) or minimizing the window (WebKit), or shows it again. */
    hide,
    close,
    context: () => ({ close }),
  };
  return self;
}

const browser = (open, close) => ({ newContext: async () => ({ newPage: open }), close });

/** A WebSocket client, because Node.js 18 has none. Calls `got(text)` for each text message. */
async function socket(port, path, got) {
  const tcp = connect(port, '127.0.0.1');
  tcp.setNoDelay(true);
  let head = '';
  await new Promise((resolve, reject) => {
    const read = reader((opcode, payload) => { if (opcode === 1) got(String(payload)); });
    tcp.on('error', reject);
    tcp.on('data', (data) => {
      if (head.endsWith('\r\n\r\n')) return read(data);
      head += data.toString('latin1');
      const end = head.indexOf('\r\n\r\n') + 4;
      if (end < 4) return;
      if (!head.startsWith('HTTP/1.1 101')) return reject(new Error(head));
      const rest = Buffer.from(head.slice(end), 'latin1');
      head = head.slice(0, end);
      resolve();
      if (rest.length) read(rest);
    });
    tcp.write(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n`
      + `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString('base64')}\r\n\r\n`);
  });
  return {
    // Clients must mask their messages. Firefox does not accept a mask of zeros.
    send: (text) => {
      const framed = message(1, text);
      const head = framed.length - Buffer.byteLength(text);
      const mask = randomBytes(4);
      framed[1] |= 0x80;
      for (let at = head; at < framed.length; at++) framed[at] ^= mask[(at - head) % 4];
      tcp.write(Buffer.concat([framed.subarray(0, head), mask, framed.subarray(head)]));
    },
    close: () => tcp.destroy(),
  };
}

/** Debian's Firefox (packages firefox-esr, and libavcodec59 for H.264). */
async function firefox() {
  const executable = ['/usr/bin/firefox-esr', '/usr/bin/firefox'].find(existsSync);
  if (!executable) throw new Error('no Firefox: apt-get install firefox-esr libavcodec59');
  const profile = mkdtempSync(join(tmpdir(), 'berrymse-'));
  writeFileSync(join(profile, 'user.js'), Object.entries({
    'network.dns.localDomains': `${host},${otherHost}`,
    'browser.shell.checkDefaultBrowser': false,
    'datareporting.policy.dataSubmissionEnabled': false,
    'app.update.disabledForTesting': true,
    'network.captive-portal-service.enabled': false,
    'network.connectivity-service.enabled': false,
    'browser.safebrowsing.update.enabled': false,
    'dom.security.https_first': false,
  }).map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`).join(''));
  const program = start(executable, ['--headless', '--no-remote', '--profile', profile, '--width', '1280',
    '--height', '900', '--remote-debugging-port', '0'], { MOZ_CRASHREPORTER_DISABLE: '1' });
  const [, port] = await program.said(/WebDriver BiDi listening on ws:\/\/127\.0\.0\.1:(\d+)/);
  const waiting = new Map();
  const pages = new Map();
  let count = 0;
  const bidi = await socket(Number(port), '/session', (text) => {
    const { id, type, result, message: why, method, params } = JSON.parse(text);
    if (method === 'log.entryAdded') {
      pages.get(params.source.context)?.said({ warn: 'warning' }[params.level] ?? params.level, params.text);
    }
    const { resolve, reject } = waiting.get(id) ?? {};
    waiting.delete(id);
    if (type === 'error') reject?.(new Error(why));
    else resolve?.(result);
  });
  const ask = (method, params) => new Promise((resolve, reject) => {
    waiting.set(++count, { resolve, reject });
    bidi.send(JSON.stringify({ id: count, method, params }));
  });
  await ask('session.new', { capabilities: {} });
  await ask('session.subscribe', { events: ['log.entryAdded'] });
  const open = async () => {
    const tab = async () => (await ask('browsingContext.create', { type: 'tab' })).context;
    const context = await tab();
    let before = null;
    const one = page({
      run: async (expression) => {
        const { type, result, exceptionDetails } = await ask('script.evaluate',
          { expression, target: { context }, awaitPromise: true, userActivation: false });
        if (type === 'exception') throw new Error(exceptionDetails.text);
        return result.value;
      },
      // The load event sometimes never arrives, so the page is polled instead.
      go: async (url) => {
        await ask('browsingContext.navigate', { context, url, wait: 'none' });
        await one.waitForFunction("location.href !== 'about:blank' && document.readyState === 'complete'");
      },
      hide: async (hidden) => {
        if (hidden) before = await tab();
        else await ask('browsingContext.close', { context: before });
        await ask('browsingContext.activate', { context: hidden ? before : context });
      },
      close: () => ask('browsingContext.close', { context }),
    });
    pages.set(context, one);
    return one;
  };
  return browser(open, async () => {
    bidi.close();
    await program.stop();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  });
}

/** Debian's WebKitGTK (package webkit2gtk-driver) on an Xvfb screen. */
async function webkit() {
  const driver = '/usr/bin/WebKitWebDriver';
  if (!existsSync(driver)) throw new Error('no WebKit: apt-get install webkit2gtk-driver xvfb xauth '
    + 'gstreamer1.0-plugins-{base,good,bad} gstreamer1.0-libav');
  const port = await new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
  const program = start('xvfb-run', ['-a', '-s', '-screen 0 1280x900x24', driver, `--port=${port}`]);
  const ask = async (method, path, body) => {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method, body: body && JSON.stringify(body) });
    const { value } = await answer.json();
    if (value?.error) throw new Error(`${value.error}: ${value.message}`);
    return value;
  };
  for (const until = Date.now() + 30_000; ; await sleep(50)) {
    try { await ask('GET', '/status'); break; } catch (error) { if (Date.now() > until) throw error; }
  }
  const { sessionId } = await ask('POST', '/session', { capabilities: { alwaysMatch: { 'webkitgtk:browserOptions': {
    binary: ['/usr/lib/x86_64-linux-gnu/webkit2gtk-4.1/MiniBrowser', '/usr/lib/aarch64-linux-gnu/webkit2gtk-4.1/MiniBrowser']
      .find(existsSync),
    args: ['--automation'],
  } } } });
  const say = (method, path, body) => ask(method, `/session/${sessionId}${path}`, body);
  const first = await say('GET', '/window');
  const open = async () => {
    const { handle } = await say('POST', '/window/new', { type: 'window' });
    await say('POST', '/window', { handle });
    return page({
      run: async (expression) => {
        const [error, value] = await say('POST', '/execute/async', { args: [], script:
          `const done = arguments[0]; ${expression}.then((value) => done([null, value]), (error) => done([String(error)]));` });
        if (error) throw new Error(error);
        return value;
      },
      go: (url) => say('POST', '/url', { url }),
      hide: (hidden) => say('POST', `/window/${hidden ? 'minimize' : 'maximize'}`, {}),
      close: async () => {
        await say('DELETE', '/window');
        await say('POST', '/window', { handle: first });
      },
    });
  };
  return browser(open, async () => {
    await ask('DELETE', `/session/${sessionId}`).catch(() => {});
    await program.stop();
  });
}

export const engines = { firefox, webkit };
