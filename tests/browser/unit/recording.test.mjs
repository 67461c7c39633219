import { test } from 'node:test';
import assert from 'node:assert/strict';
import { parseMessage } from '../../../web/player/parse.js';
import { Recording } from '../../../web/player/recording.js';
import { fragment, init, message } from './fragments.mjs';

const stream = { codec: 'avc1.42c01f', width: 640, height: 480 };
const parsed = (...parts) => parseMessage(message(...parts));

/** Returns the frame times in a recording, and whether it starts with an init segment. */
async function content(recording) {
  const { init: segment, frames } = parseMessage(await recording.stop().arrayBuffer());
  return { init: segment !== null, times: frames.map(({ time }) => time) };
}

test('a recording starts at a key frame, at time 0', async () => {
  const recording = new Recording(() => {});
  recording.append({ init: init(), frames: [] }, stream);
  recording.append(parsed(fragment({ time: 90_000 })), stream);
  assert.equal(recording.duration, 0);
  recording.append(parsed(fragment({ time: 93_000, key: true }), fragment({ time: 96_000 })), stream);
  recording.append(parsed(fragment({ time: 99_000 })), stream);
  assert.equal(recording.duration, 0.1);
  assert.deepEqual(await content(recording), { init: true, times: [0, 3000, 6000] });
});

test('frames received again after a reconnect are left out', async () => {
  const recording = new Recording(() => {});
  const group = [fragment({ time: 3000, key: true }), fragment({ time: 6000 })];
  recording.append(parsed(init(), ...group), stream);
  recording.append(parsed(init(), ...group, fragment({ time: 9000 })), stream);
  assert.deepEqual(await content(recording), { init: true, times: [0, 3000, 6000] });
});

test('the file continues at its end after the server restarts', async () => {
  const recording = new Recording(() => {});
  recording.append(parsed(init(), fragment({ time: 90_000, key: true }), fragment({ time: 93_000 })), stream);
  recording.append(parsed(init(), fragment({ time: 0, key: true }), fragment({ time: 3000 })), stream);
  assert.deepEqual(await content(recording), { init: true, times: [0, 3000, 6000, 9000] });
});

test('different parameters end the recording, once', async () => {
  const ended = [];
  const recording = new Recording((which) => ended.push(which));
  recording.append(parsed(init(), fragment({ time: 0, key: true })), stream);
  recording.append(parsed(init(), fragment({ time: 3000, key: true })), { ...stream, width: 800 });
  recording.append(parsed(fragment({ time: 6000 })), stream);
  assert.deepEqual(await content(recording), { init: true, times: [0] });
  assert.deepEqual(ended, [recording]);
});
