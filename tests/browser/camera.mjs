// A stand-in for the server that implements `/live` (docs/api.md) and records when it sends each frame. Its
// fragments come from the real executable, with different times. A test can therefore choose any frame
// rate, jitter, network stall and backlog, and knows the age of each frame on a page to a fraction of a
// millisecond.

import { createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { clip, serve, sleep } from './lib.mjs';

export const TIMESCALE = 90000;

/** Returns a WebSocket frame (RFC 6455) as servers send it. `opcode`: 1 text, 2 binary. */
export function message(opcode, payload) {
  const data = Buffer.from(payload);
  const head = data.length < 126 ? Buffer.alloc(2) : data.length < 65536 ? Buffer.alloc(4) : Buffer.alloc(10);
  head[0] = 0x80 | opcode;
  if (head.length === 2) head[1] = data.length;
  else if (head.length === 4) { head[1] = 126; head.writeUInt16BE(data.length, 2); }
  else { head[1] = 127; head.writeBigUInt64BE(BigInt(data.length), 2); }
  return Buffer.concat([head, data]);
}

/** Parses WebSocket frames from pieces of any size, and calls `got(opcode, payload, whole)` for each. */
export function reader(got) {
  let buffer = Buffer.alloc(0);
  return (data) => {
    buffer = Buffer.concat([buffer, data]);
    for (;;) {
      if (buffer.length < 2) return;
      let at = 2;
      let length = buffer[1] & 0x7f;
      if (length === 126) at = 4;
      if (length === 127) at = 10;
      const masked = buffer[1] & 0x80;
      if (buffer.length < at + (masked ? 4 : 0)) return;
      if (length === 126) length = buffer.readUInt16BE(2);
      if (length === 127) length = Number(buffer.readBigUInt64BE(2));
      const mask = masked ? buffer.subarray(at, at += 4) : null;
      if (buffer.length < at + length) return;
      const payload = Buffer.from(buffer.subarray(at, at + length));
      if (mask) payload.forEach((byte, n) => { payload[n] = byte ^ mask[n % 4]; });
      got(buffer[0] & 0x0f, payload, buffer.subarray(0, at + length));
      buffer = buffer.subarray(at + length);
    }
  };
}

/** Creates the test card with one key frame every 10 s in `folder`. `options`: additional ffmpeg options. */
export function longGroup(folder, options = []) {
  const file = join(folder, 'long.h264');
  if (!existsSync(file)) {
    execFileSync('ffmpeg', ['-v', 'error', '-i', clip, '-c:v', 'libx264', '-preset', 'veryfast', '-tune',
      'zerolatency', '-g', '300', '-keyint_min', '300', '-sc_threshold', '0', '-b:v', '2M', ...options,
      '-f', 'h264', file]);
  }
  return file;
}

/** Returns the init message, the init segment, the fragments of one group of pictures, and the executable's player. */
export async function material(frames = 300) {
  const folder = mkdtempSync(join(tmpdir(), 'berrymse-'));
  const command = JSON.stringify(['sh', '-c', `cat ${longGroup(folder, ['-g', frames, '-keyint_min', frames])}; sleep 60`]);
  const server = await serve(`[[camera]]\nsource = { command = ${command} }\n`);
  try {
    while ((await server.status()).cameras[0].frames < 299) await sleep(50);
    const got = await new Promise((resolve, reject) => {
      const socket = connect(server.port, '127.0.0.1');
      let text, head = '';
      const read = reader((opcode, payload) => {
        if (opcode === 1) text = JSON.parse(payload);
        else if (opcode === 2) { resolve({ text, data: payload }); socket.destroy(); }
      });
      socket.on('error', reject);
      socket.on('data', (data) => {
        if (head.includes('\r\n\r\n')) return read(data);
        head += data.toString('latin1');
        const end = head.indexOf('\r\n\r\n');
        if (end >= 0) read(Buffer.from(head.slice(end + 4), 'latin1'));
      });
      socket.write('GET /live HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
        + 'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n');
    });
    const script = await (await fetch(`http://127.0.0.1:${server.port}/berrymse.js`)).text();
    const first = got.data.indexOf('moof') - 4;
    const fragments = [];
    for (let at = first; at < got.data.length; ) {
      const size = 100 + got.data.readUInt32BE(at + 100);
      fragments.push(got.data.subarray(at, at + size));
      at += size;
    }
    return { text: got.text, init: got.data.subarray(0, first), fragments, script };
  } finally {
    await server.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * Starts the server. `period`: frame period, in ms; `jitter`: maximum delay of a frame, in ms;
 * `pages(path)`: returns the body for all other paths; `spoil(segment)`: changes the init segment.
 *
 * The first viewer receives a backlog of `history` frames (fewer than the group contains).
 */
export async function camera({ text, init, fragments }, options = {}) {
  const { period = 33.4, jitter = 0, history = 0, pages = () => undefined, spoil = (bytes) => bytes } = options;
  const step = Math.round(period * TIMESCALE / 1000);
  const sent = new Map(); // decode time → send time, in ms of this process's clock
  const viewers = new Set();
  let number = 0;
  let due = performance.now();
  let newest = null;
  let held = null; // messages held back while the network is stalled
  const group = [];
  const fragment = (n) => {
    const bytes = Buffer.from(fragments[n % fragments.length]);
    bytes.writeUInt32BE(step, 48);
    bytes.writeBigUInt64BE(BigInt(n * step), 64);
    return bytes;
  };
  const next = () => {
    const bytes = fragment(number);
    if (number % fragments.length === 0) group.length = 0;
    group.push(bytes);
    return bytes;
  };
  while (number < history) { next(); number++; }

  const write = (viewer, bytes) => (held ? held.push([viewer, bytes]) : viewer.write(bytes));
  const start = (viewer) => {
    write(viewer, message(1, JSON.stringify({ ...text, framerate: 1000 / period })));
    write(viewer, message(2, Buffer.concat([spoil(init), ...group])));
    viewers.add(viewer);
  };
  let timer;
  const publish = () => {
    const bytes = next();
    const now = performance.now();
    newest = { time: number * step, published: now };
    sent.set(newest.time, now);
    const framed = message(2, bytes);
    for (const viewer of viewers) write(viewer, framed);
    number++;
    due += period;
    const late = Math.random() * jitter;
    timer = setTimeout(publish, Math.max(0, due + late - performance.now()));
  };

  const server = createServer((request, response) => {
    const path = request.url.split('?')[0];
    const body = pages(path);
    const kind = { js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml' }[path.split('.').pop()] ?? 'text/html';
    response.writeHead(body === undefined ? 404 : 200, { 'content-type': kind });
    response.end(body);
  });
  const sockets = new Set();
  server.on('connection', (socket) => {
    socket.setNoDelay(true);
    sockets.add(socket);
    socket.on('close', () => { sockets.delete(socket); viewers.delete(socket); });
    socket.on('error', () => socket.destroy());
  });
  server.on('upgrade', (request, socket) => {
    const accept = createHash('sha1')
      .update(`${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
    socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
      + `Sec-WebSocket-Accept: ${accept}\r\n\r\n`);
    if (request.url.startsWith('/live')) start(socket);
    socket.on('data', reader((opcode, payload) => {
      if (opcode === 8) { socket.end(message(8, payload)); return; }
      if (opcode !== 1) return;
      const { type, id } = JSON.parse(payload);
      if (type !== 'time') return;
      const now = performance.now();
      const answer = { type, id, now, ...(newest && { frame: newest }) };
      write(socket, message(1, JSON.stringify(answer)));
    }));
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  if (!options.still) publish();
  return {
    port: server.address().port,
    sent,
    step,
    viewers,
    number: () => number,
    /** Sends a text message to all viewers. */
    say: (object) => { for (const viewer of viewers) write(viewer, message(1, JSON.stringify(object))); },
    /** Sends an invalid fragment with a frame that cannot be decoded. */
    garbage: () => {
      const bytes = Buffer.from(fragment(number));
      bytes.fill(0xff, 108);
      bytes.writeUInt32BE(0x7fffffff, 84); // number of samples
      for (const viewer of viewers) write(viewer, message(2, bytes));
    },
    /** Stalls the network for `ms`, then delivers everything at once. */
    stall: async (ms) => {
      held = [];
      await sleep(ms);
      const late = held;
      held = null;
      for (const [viewer, bytes] of late) viewer.write(bytes);
    },
    stop: async () => {
      clearTimeout(timer);
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => { server.close(resolve); });
    },
  };
}
