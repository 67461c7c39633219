import { test } from 'node:test';
import assert from 'node:assert/strict';
import { Clock } from '../../../web/player/clock.js';

/** Sends a request at `sentAt`. The request takes `there` ms, the reply `back` ms. The server's clock is 1000 ms behind. */
function ask(clock, sentAt, there, back, frame) {
  const { type, id } = JSON.parse(clock.request(sentAt));
  assert.equal(type, 'time');
  clock.onReply({ id, now: sentAt + there - 1000, frame }, sentAt + there + back);
}

test('the reply with the shortest round trip counts', () => {
  const clock = new Clock();
  assert.equal(clock.best.roundTrip, Infinity);
  ask(clock, 0, 30, 10);
  assert.deepEqual(clock.best, { roundTrip: 40, offset: 990 });
  ask(clock, 100, 5, 5);
  assert.deepEqual(clock.best, { roundTrip: 10, offset: 1000 });
  ask(clock, 200, 100, 1);
  assert.equal(clock.best.offset, 1000);
});

test('only the last eight replies count, because clocks drift', () => {
  const clock = new Clock();
  ask(clock, 0, 1, 1);
  for (let n = 1; n <= 7; n++) ask(clock, 100 * n, 20, 20);
  assert.equal(clock.best.roundTrip, 2);
  ask(clock, 800, 20, 20);
  assert.equal(clock.best.roundTrip, 40);
  assert.equal(clock.count, 9);
});

test('unknown and repeated replies are ignored', () => {
  const clock = new Clock();
  clock.onReply({ id: 1, now: 5 }, 10);
  ask(clock, 0, 10, 10);
  clock.onReply({ id: 1, now: 5000 }, 1);
  assert.deepEqual(clock.best, { roundTrip: 20, offset: 1000 });
});

test('the latest eight published frames are kept', () => {
  const clock = new Clock();
  for (let n = 0; n < 10; n++) ask(clock, n, 1, 1, { time: n, published: n });
  assert.deepEqual(clock.published.map(({ time }) => time), [2, 3, 4, 5, 6, 7, 8, 9]);
});
