// ./ci/bench delay: measures the age of pictures when Chromium shows them, by policy, frame rate and jitter,
// and the time until playback is live again after a network stall. Prints tables, and writes every frame to
// bench-results/delay.json.
// ONLY="60 fps", ONLY="30 fps: nudge", ONLY="stall": runs a part, and writes it to a separate file.
// QUICK=1: shorter windows, one window per case, fewer cases; not for comparisons.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { material } from './camera.mjs';
import { element, measure, recovery } from './delay.mjs';
import { browser as launch } from './lib.mjs';

const quick = Boolean(process.env.QUICK);
const results = fileURLToPath(new URL('../../bench-results', import.meta.url));
const rivals = readFileSync(new URL('rivals.html', import.meta.url), 'utf8');
const rival = (policy) => rivals.replace("?? 'none'", `?? '${policy}'`);
const ours = ['run-ahead', 'nudge', 'webcodecs'].map((mode) => [mode, element(`mode="${mode}"`)]);
const others = [['playback rate follows the gap (go2rtc)', rival('gap')],
  ['seek when 1 s behind (Go BerryMSE)', rival('seek')]];

// Slightly off the screen's 60 Hz, so that the phase between the two varies.
const period = (fps) => (1000 / fps) * 1.002;
const film = (init) => {
  const declared = Buffer.from(init);
  declared.writeUInt32BE(0xfffffff, declared.indexOf('mvhd') + 4 + 16);
  return declared;
};

const one = { seconds: quick ? 4 : 20, tries: quick ? 1 : 3 };
const many = { seconds: quick ? 4 : 8.4, tries: quick ? 1 : 2 };
const cases = [
  ...[...ours, ...others].map(([name, html]) => ({ table: '30 fps', name, html, fps: 30, ...one })),
  { table: '30 fps', name: 'control: a declared duration', html: element('mode="run-ahead"'), fps: 30, spoil: film, seconds: 8.4, tries: 1,
    fails: ({ median }) => median > 50 },
  { table: '30 fps', name: 'control: a backlog of 30 frames, no seek', html: rival('none'), fps: 30, history: 30, seconds: 8.4, tries: 1,
    fails: ({ median }) => median > 800 },
  ...(quick ? [15, 60] : [15, 25, 50, 60]).flatMap((fps) =>
    ours.map(([name, html]) => ({ table: `${fps} fps`, name, html, fps, ...many }))),
  ...(quick ? [40] : [10, 20, 40]).flatMap((jitter) => [30, 60].flatMap((fps) =>
    ours.map(([name, html]) => ({ table: `${fps} fps, each frame up to ${jitter} ms late`, name, html, fps, jitter, ...many })))),
];

const only = process.env.ONLY;
const browser = await launch();
const stuff = await material();
const kept = [];
let table;
let wrong = 0;
for (const { name, html, fps, fails, ...options } of cases) {
  if (only && !`${options.table}: ${name}`.includes(only)) continue;
  if (options.table !== table) {
    ({ table } = options);
    console.log(`\n${table}\n${'policy'.padEnd(40)} ${'median'.padStart(8)} ${'95 %'.padStart(8)} ${'worst'.padStart(8)} `
      + `${'skipped'.padStart(8)} ${'late'.padStart(7)} ${'gap'.padStart(8)}`);
  }
  const found = await measure(browser, stuff, html, { ...options, period: period(fps) });
  const ms = (value) => `${value.toFixed(1)}`.padStart(8);
  const part = (value) => `${(100 * value).toFixed(1)} %`.padStart(8);
  console.log(`${name.padEnd(40)} ${ms(found.median)} ${ms(found.p95)} ${ms(found.max)} ${part(found.skipped)} `
    + `${part(found.late).padStart(7)} ${ms(found.frozen)}`);
  if (fails && !fails(found)) {
    wrong++;
    console.log('  this control should be much higher: the measurement is wrong');
  }
  if (found.complaints.length) {
    wrong++;
    console.log(`  the page logged errors: ${found.complaints}`);
  }
  kept.push({ table, name, fps, jitter: options.jitter ?? 0, ...found });
}

const stalled = 'live again after a network stall of 500 ms';
let reference;
for (const [name, html] of [...ours, ...others, ['control: a backlog of 59 frames, no seek', rival('none')]]) {
  if (only && !`${stalled}: ${name}`.includes(only)) continue;
  if (reference === undefined) {
    console.log(`\n${stalled}\n${'policy'.padEnd(40)} ${'median'.padStart(8)} ${'worst'.padStart(8)} ${'ratio'.padStart(8)}`);
  }
  const times = (await recovery(browser, stuff, html, quick ? 3 : 9)).sort((a, b) => a - b);
  const middle = times[times.length >> 1];
  reference ??= middle;
  const ms = (value) => (value === Infinity ? 'never' : value.toFixed(0)).padStart(8);
  const ratio = middle === Infinity ? '' : (middle / reference).toFixed(2);
  console.log(`${name.padEnd(40)} ${ms(middle)} ${ms(times.at(-1))} ${ratio.padStart(8)}`);
  if (name.startsWith('control') && middle !== Infinity) {
    wrong++;
    console.log('  this control should never be live: the measurement is wrong');
  }
  kept.push({ table: stalled, name, times });
}
await browser.close();
mkdirSync(results, { recursive: true });
writeFileSync(`${results}/delay${only ? ` ${only}` : ''}.json`, JSON.stringify(kept));
console.log('\nAges in ms, from sending a frame to handing it to the screen (for WebCodecs: to drawing it), in the best window.');
console.log('Late: older than one frame period. Gap: the longest time without a new picture, in ms.');
console.log('Ratio: relative to the first row of the table.');
process.exit(wrong ? 1 : 0);
