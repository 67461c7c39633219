import { test } from 'node:test';
import assert from 'node:assert/strict';
import { statisticsText } from '../../../web/player/controls.js';

const stats = { age: 7.04, roundTrip: 0.61, shown: 29.97, received: 30.02, bitrate: 2_345_000, skipped: 2, dropped: 1,
  reconnects: 3, policy: 'run-ahead' };

test('the overlay shows one figure per line', () => {
  assert.deepEqual(statisticsText(stats).split('\n'), [
    'age         7.0 ms',
    'round trip  0.6 ms',
    'shown       30.0 of 30.0 fps',
    'skipped     2, dropped 1',
    'bit rate    2.35 Mbit/s',
    'policy      run-ahead',
    'reconnects  3',
  ]);
});

test('long times have no fraction, and unknown times are shown as a question mark', () => {
  const [age, roundTrip] = statisticsText({ ...stats, age: 12.3, roundTrip: null }).split('\n');
  assert.deepEqual([age, roundTrip], ['age         12 ms', 'round trip  ? ms']);
});
