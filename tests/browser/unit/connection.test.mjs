import { beforeEach, test } from 'node:test';
import assert from 'node:assert/strict';
import { Connection, cameraName, retryDelay, statusUrl } from '../../../web/player/connection.js';

/** Timers that `pass` fires. */
let timers;
let sockets;
let now;
beforeEach(() => {
  timers = new Map();
  sockets = [];
  now = 0;
});
let id = 0;
globalThis.setTimeout = (call, ms) => { timers.set(++id, { call, at: now + ms }); return id; };
globalThis.clearTimeout = (timer) => { timers.delete(timer); };
// Node.js 18 does not allow performance.now to be replaced.
Object.defineProperty(globalThis, 'performance', { value: { now: () => now } });
globalThis.WebSocket = class {
  static OPEN = 1;
  readyState = 0;
  sent = [];
  constructor(url) { this.url = url; sockets.push(this); }
  send(text) { this.sent.push(JSON.parse(text)); }
  close() { this.readyState = 3; }
  open() { this.readyState = 1; this.onopen(); }
};

/** Lets time pass. */
function pass(ms) {
  now += ms;
  for (const [timer, { call, at }] of timers) if (at <= now && timers.delete(timer)) call();
}

/** Returns a connection, and the names of the handlers that were called. */
function connect() {
  const calls = [];
  const connection = new Connection({
    opened: () => calls.push('opened'),
    text: (message) => calls.push(message),
    data: (buffer) => calls.push(buffer.byteLength),
    lost: () => calls.push('lost'),
  });
  connection.connect('ws://camera/live');
  return { connection, calls, socket: sockets.at(-1) };
}

test('reconnect delays grow to a limit, and vary by half', () => {
  assert.deepEqual([0, 1, 2, 3, 50].map((failures) => retryDelay(failures, 0.5)), [250, 500, 1000, 1000, 1000]);
  assert.deepEqual([retryDelay(9, 0), retryDelay(9, 1)], [500, 1500]);
});

test('requests the time once open, and forwards messages', () => {
  const { connection, calls, socket } = connect();
  assert.deepEqual([connection.active, connection.open], [true, false]);
  socket.open();
  assert.equal(connection.open, true);
  assert.deepEqual(socket.sent, [{ type: 'time', id: 1 }]);
  now = 10;
  socket.onmessage({ data: '{"type":"time","id":1,"now":5}' });
  assert.deepEqual(connection.clock.best, { roundTrip: 10, offset: 0 });
  socket.onmessage({ data: '{"type":"init"}' });
  socket.onmessage({ data: new ArrayBuffer(3) });
  assert.deepEqual(calls, ['opened', { type: 'init' }, 3]);
  pass(60_000);
  assert.ok(!calls.includes('lost'), 'an open connection has no time limit');
});

test('an attempt times out after 2 s, every fourth after 10 s', () => {
  const { connection, calls } = connect();
  const attempts = [];
  for (let n = 0; n < 8; n++) {
    const start = now;
    while (!calls.includes('lost')) pass(100);
    attempts.push(now - start);
    calls.length = 0;
    connection.retry(() => connection.connect('ws://camera/live'));
    const before = sockets.length;
    while (sockets.length === before) pass(10);
  }
  assert.deepEqual(attempts, [2000, 2000, 2000, 10000, 2000, 2000, 2000, 10000]);
});

test('a closed connection calls no handlers', () => {
  const { connection, calls, socket } = connect();
  connection.close();
  assert.deepEqual([socket.readyState, socket.onclose, socket.onmessage], [3, null, null]);
  assert.equal(connection.active, false);
  pass(60_000);
  assert.deepEqual(calls, []);
});

test('a reconnect replaces the socket, and starts a new clock', () => {
  const { connection, socket } = connect();
  socket.open();
  connection.connect('ws://camera/live');
  assert.equal(socket.readyState, 3);
  assert.deepEqual([sockets.length, connection.clock.count], [2, 0]);
});

test('a gap between messages is a network stall', () => {
  const { connection, socket } = connect();
  socket.open();
  for (const [ms, stalled] of [[250, false], [251, true]]) {
    now += ms;
    socket.onmessage({ data: new ArrayBuffer(0) });
    assert.equal(connection.stalled, stalled, `${ms} ms`);
  }
});

test('derives camera name and status URL from a stream URL', () => {
  for (const [stream, name, status] of [
    ['ws://cam:2020/live', '', 'http://cam:2020/api/status'],
    ['wss://cam/live/front%20door', 'front door', 'https://cam/api/status'],
    ['ws://cam/proxy/live/front', 'front', 'http://cam/proxy/api/status'],
  ]) {
    assert.deepEqual([cameraName(new URL(stream)), statusUrl(new URL(stream)).href], [name, status]);
  }
});
