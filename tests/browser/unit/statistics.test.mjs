import { test } from 'node:test';
import assert from 'node:assert/strict';
import { Statistics } from '../../../web/player/statistics.js';

const clock = { best: { roundTrip: 8, offset: 1000 }, published: [] };

test('rates cover the time between two samples, and totals the time since the start', () => {
  const statistics = new Statistics();
  assert.equal(statistics.sample(0, clock), null);
  statistics.received += 60;
  statistics.bytes += 250_000;
  for (let n = 0; n < 50; n++) statistics.frameShown(n / 30, n * 33, 1);
  statistics.dropped += 3;
  const sample = statistics.sample(2000, clock);
  assert.deepEqual(sample, { age: null, roundTrip: 8, shown: 25, received: 30, bitrate: 1e6,
    skipped: 10, dropped: 3, reconnects: 0 });
  statistics.received += 30;
  statistics.frameShown(2, 2500, 31); // includes one late frame of the previous interval
  const next = statistics.sample(3000, clock);
  assert.deepEqual([next.received, next.shown, next.skipped], [30, 31, 10]);
});

test('after a reconnect, rates restart and totals continue', () => {
  const statistics = new Statistics();
  statistics.sample(0, clock);
  statistics.received += 30;
  statistics.reset();
  assert.equal(statistics.sample(10_000, clock), null);
  assert.equal(statistics.sample(11_000, clock).received, 0);
  assert.equal(statistics.received, 30);
});

test('the age is the time from publication to display, on the server\'s clock', () => {
  const statistics = new Statistics();
  const known = { ...clock, published: [{ time: 90_000, published: 500 }, { time: 900_000, published: 900 }] };
  statistics.sample(0, known);
  statistics.frameShown(1.0005, 1512, 1);
  assert.equal(statistics.sample(1000, known).age, 12);
  assert.deepEqual(known.published, [{ time: 900_000, published: 900 }], 'the other frame may still be shown');
  assert.equal(statistics.sample(2000, known).age, 12, 'the last known age remains');
});

test('the round trip is unknown without a reply', () => {
  const statistics = new Statistics();
  const unknown = { best: { roundTrip: Infinity }, published: [] };
  statistics.sample(0, unknown);
  assert.equal(statistics.sample(1000, unknown).roundTrip, null);
});
