import { test } from 'node:test';
import assert from 'node:assert/strict';
import {
  concatenate, decoderConfiguration, frameBytes, mimeType, parseMessage, retimedFragment,
} from '../../../web/player/parse.js';
import { fragment, init, message } from './fragments.mjs';

test('a message is split into its init segment and its frames', () => {
  const parts = [init(), fragment({ time: 9000, key: true }), fragment({ time: 2 ** 40, duration: 1500, bytes: [7] })];
  const parsed = parseMessage(message(...parts));
  assert.deepEqual(Buffer.from(parsed.init), parts[0]);
  const [, second, third] = parts.reduce((ends, part) => [...ends, ends.at(-1) + part.length], [0]);
  assert.deepEqual(parsed.frames, [
    { at: parts[0].length, end: third, time: 9000, duration: 3000, key: true },
    { at: third, end: third + parts[2].length, time: 2 ** 40, duration: 1500, key: false },
  ]);
  assert.equal(second, parts[0].length);
  assert.deepEqual([...frameBytes(parsed, parsed.frames[0])], [1, 2, 3]);
  assert.deepEqual([...frameBytes(parsed, parsed.frames[1])], [7]);
});

test('accepts a message without an init segment, and an empty message', () => {
  assert.equal(parseMessage(message(fragment({ time: 0 }))).init, null);
  assert.deepEqual(parseMessage(new ArrayBuffer(0)).frames, []);
});

test('an invalid box size ends the message', () => {
  const broken = init();
  broken.writeUInt32BE(7, 0);
  const { init: found, frames } = parseMessage(message(broken));
  assert.deepEqual([found, frames], [null, []]);
});

test('the decoder configuration is the content of avcC', () => {
  const { init: segment } = parseMessage(message(init([1, 2, 3, 4, 5]), fragment({ time: 0 })));
  assert.deepEqual([...decoderConfiguration(segment)], [1, 2, 3, 4, 5]);
});

test('a fragment is copied with a different time', () => {
  const parsed = parseMessage(message(fragment({ time: 5 }), fragment({ time: 6, bytes: [9] })));
  const copy = retimedFragment(parsed, parsed.frames[1], 1234);
  const { frames: [frame] } = parseMessage(copy);
  assert.deepEqual([frame.time, [...frameBytes({ data: copy }, frame)]], [1234, [9]]);
  assert.equal(parseMessage(parsed.data).frames[1].time, 6);
});

test('buffers are concatenated', () => {
  const [a, b] = [message(Buffer.from([1, 2])), message(Buffer.from([3]))];
  assert.deepEqual([...concatenate([a, b])], [1, 2, 3]);
});

test('the MIME type names the codec', () => {
  assert.equal(mimeType({ codec: 'avc1.42c01f' }), 'video/mp4; codecs="avc1.42c01f"');
});
