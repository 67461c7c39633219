// The policies in virtual time: a simulated <video> plays what a simulated camera sends.

import { test } from 'node:test';
import assert from 'node:assert/strict';
import {
  POLICIES, Pacer, Trial, choosePolicy, isWebKit, refreshPeriod,
} from '../../../web/player/policy.js';

/**
 * Plays `seconds` of a camera in steps of 1 ms. Playback starts with a backlog of `backlog` frames.
 * `stalls` are periods [from, to) in which the network delivers nothing, in seconds. `groups` is the
 * time between key frames, in seconds. Returns how many frames the picture was behind at each arrival,
 * and what was adjusted.
 */
function simulate(policy, { webkit = false, backlog = 0, stalls = [], seconds = 10, fps = 30, groups = 10 } = {}) {
  const step = 1 / fps;
  const pacer = new Pacer(POLICIES[policy], webkit);
  const video = { currentTime: 0, rate: 1 };
  const found = { behind: [], seeks: 0, rates: [], waits: 0 };
  let sent = backlog;
  let end = 0;
  let waiting = false;
  for (let ms = 0; ms < seconds * 1000; ms++) {
    const now = ms / 1000;
    video.currentTime = Math.min(end, video.currentTime + video.rate / 1000);
    if (end && video.currentTime === end && !waiting) {
      waiting = true;
      found.waits++;
      pacer.stalled();
    }
    while (sent < backlog + now * fps) sent++;
    const stalled = stalls.some(([from, to]) => now >= from && now < to);
    if (stalled || end === sent * step) continue;
    end = sent * step;
    waiting = false;
    const key = Math.floor(sent / (groups * fps)) * groups;
    const { seek, rate } = pacer.adjust({ start: 0, end, currentTime: video.currentTime, rate: video.rate, key,
      ready: true, step, screen: 1 / 60, ...(webkit && { webkit }) });
    found.behind.push((end - video.currentTime) / step);
    if (seek !== null) {
      found.seeks++;
      video.currentTime = seek;
    }
    if (rate !== null) {
      found.rates.push(rate);
      video.rate = rate;
    }
  }
  return found;
}

for (const policy of ['run-ahead', 'nudge']) {
  test(`${policy}: with a backlog of 59 frames, seeks once and is live at the next frame`, () => {
    const { behind, seeks } = simulate(policy, { backlog: 59 });
    assert.equal(seeks, 1);
    assert.ok(Math.max(...behind.slice(1)) < 4, `${behind.slice(0, 5)}`);
  });

  test(`${policy}: live within 10 frames after half a second without network`, () => {
    // The 15 frames arrive at once; no key frame is among them, so there is nothing to seek to.
    const { behind, seeks } = simulate(policy, { backlog: 59, stalls: [[4, 4.5]] });
    const burst = behind.findIndex((frames, n) => n > 1 && frames > 10);
    assert.ok(burst > 100, 'the stall is noticed');
    const live = behind.slice(burst).findIndex((frames) => frames < 4);
    assert.ok(live > 0 && live <= 10, `${behind.slice(burst, burst + 15)}`);
    assert.equal(seeks, 1);
    assert.ok(Math.max(...behind.slice(burst + live)) < 5, 'the picture stays live');
  });

  test(`${policy}: seeks after 5 seconds without network`, () => {
    const { behind, seeks } = simulate(policy, { backlog: 59, stalls: [[2, 7]] });
    assert.equal(seeks, 2);
    assert.ok(behind.at(-1) < 4);
  });
}

test('run-ahead: waits for every frame but the first', () => {
  const { behind, waits } = simulate('run-ahead');
  assert.ok(behind.slice(30).every((frames) => Math.abs(frames - 1) < 1e-6), 'all received frames have been played');
  assert.ok(waits > 290, `${waits}`);
});

test('nudge: keeps its distance, and does not run out of data', () => {
  const { behind, waits } = simulate('nudge');
  const settled = behind.slice(60);
  assert.ok(Math.min(...settled) > 1.5 && Math.max(...settled) < 3, `${Math.min(...settled)} to ${Math.max(...settled)}`);
  assert.ok(waits <= 1, `${waits}`);
});

test('nudge: stalls add to the distance, which decays', () => {
  const pacer = new Pacer(POLICIES.nudge, false);
  const at = { start: 0, end: 10, currentTime: 9.9, rate: 1, key: 0, ready: true, step: 1 / 30, screen: 1 / 60 };
  const rate = () => pacer.adjust(at).rate;
  rate();
  const before = rate();
  for (let n = 0; n < 20; n++) pacer.stalled();
  const after = rate();
  assert.ok(after < before, `${after} after ${before}`);
  for (let n = 0; n < 1800; n++) rate();
  assert.ok(rate() > after);
});

test('WebKit: the rate is always 1, and it seeks instead of playing faster', () => {
  const { rates, seeks, behind } = simulate('nudge', { webkit: true, backlog: 59, stalls: [[4, 4.5]], groups: 1 });
  assert.deepEqual(rates, []);
  assert.ok(seeks >= 2, `${seeks}`);
  assert.ok(behind.at(-1) < 12, `${behind.at(-1)}`);
});

test('WebKit: no seek before the first frame', () => {
  const pacer = new Pacer(POLICIES.nudge, true);
  const at = { start: 0, end: 2, currentTime: 0, rate: 1, key: 0, step: 1 / 30, screen: 1 / 60 };
  assert.deepEqual(pacer.adjust({ ...at, ready: false }), { seek: null, rate: null });
  assert.ok(pacer.adjust({ ...at, ready: true }).seek > 1.9);
});

test('the policy depends on frame rate, refresh rate, engine and failed policies', () => {
  const all = () => true;
  const only = (...names) => (name) => names.includes(name);
  const slow = { step: 1 / 30, screen: 1 / 60, webkit: false };
  const fast = { step: 1 / 60, screen: 1 / 60, webkit: false };
  for (const [mode, abandoned, canPlay, conditions, expected] of [
    ['auto', 0, all, slow, 'run-ahead'],
    ['auto', 1, all, slow, 'webcodecs'],
    ['auto', 2, all, slow, 'nudge'],
    ['auto', 9, all, slow, 'nudge'],
    ['auto', 0, only('run-ahead', 'nudge'), fast, 'nudge'],
    ['auto', 0, all, fast, 'webcodecs'],
    ['auto', 0, only('run-ahead', 'nudge'), { ...slow, webkit: true }, 'nudge'],
    ['nudge', 0, all, slow, 'nudge'],
    ['run-ahead', 5, all, fast, 'run-ahead'],
    ['webcodecs', 0, only('run-ahead', 'nudge'), slow, 'run-ahead'],
    ['no such mode', 0, all, slow, 'run-ahead'],
    ['auto', 0, () => false, slow, undefined],
  ]) {
    assert.equal(choosePolicy(mode, abandoned, canPlay, conditions), expected, `${mode}, ${abandoned}`);
  }
});

test('run-ahead: the rate is at most 1.75', () => {
  const { rate } = POLICIES['run-ahead'];
  assert.ok(Math.abs(rate({ step: 1 / 30, screen: 1 / 60 }) - 1.74) < 1e-9);
  assert.equal(rate({ step: 1 / 15, screen: 1 / 60 }), 1.75);
  assert.equal(rate({ step: 1 / 60, screen: 1 / 60 }), 1.2);
});

test('the refresh period is the median, limited to 24 to 360 Hz', () => {
  const times = (period) => Array.from({ length: 21 }, (_, n) => n * period);
  assert.equal(refreshPeriod(times(20)), 0.02);
  assert.equal(refreshPeriod([...times(20).slice(0, 20), 5000]), 0.02);
  assert.equal(refreshPeriod(times(1000)), 1 / 24);
  assert.equal(refreshPeriod(times(0)), 1 / 360);
});

test('browser engines are distinguished', () => {
  for (const [agent, webkit] of [
    ['Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36', false],
    ['Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0', false],
    ['Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 '
      + 'Mobile/15E148 Safari/604.1', true],
  ]) {
    assert.equal(isWebKit(agent), webkit, agent);
  }
});

/** Runs up to `ticks` ticks in which the fraction `part` of the frames is shown. Returns the tick of failure, or -1. */
function run(trial, counts, ticks, part, interrupted = () => false) {
  for (let n = 0; n < ticks; n++) {
    counts.received += 15;
    counts.shown += 15 * part;
    if (trial.tick(counts, interrupted(n))) return n;
  }
  return -1;
}

test('a policy fails after two consecutive trials with too few frames', () => {
  const counts = () => ({ received: 0, shown: 0 });
  // One tick to start, two to warm up, then two trials of ten ticks each.
  assert.equal(run(new Trial(), counts(), 100, 0.8), 22);
  assert.equal(run(new Trial(), counts(), 1000, 0.95), -1);
  // Every trial is interrupted, so none is complete.
  assert.equal(run(new Trial(), counts(), 1000, 0.5, (n) => n % 10 === 0), -1);
  const trial = new Trial();
  const mixed = counts();
  assert.equal(run(trial, mixed, 13, 0.8), -1);
  assert.equal(run(trial, mixed, 10, 1), -1, 'a successful trial in between');
  assert.equal(run(trial, mixed, 10, 0.8), -1);
  assert.equal(run(trial, mixed, 10, 0.8), 9);
});

test('a reset discards the failed trial', () => {
  const trial = new Trial();
  const counts = { received: 0, shown: 0 };
  assert.equal(run(trial, counts, 13, 0.5), -1);
  trial.reset();
  assert.equal(run(trial, counts, 13, 0.5), -1);
});

test('a camera that sends nothing does not fail a policy', () => {
  const trial = new Trial();
  for (let n = 0; n < 100; n++) assert.equal(trial.tick({ received: 0, shown: 0 }, false), false);
});
