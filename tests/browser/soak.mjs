// ./ci/bench soak: plays the server's test card for MINUTES (60), and reports once per minute the age of
// the picture and the memory use of Chromium's renderers and of the page's script. Fails if the last
// quarter uses more memory than the second by both 10 % and 20 MB, or if the age has drifted by more than
// 20 ms. Then hides the page for HIDDEN (5) minutes and freezes it, as browsers do. The page must be live
// within 300 ms of being shown.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { notes } from './delay.mjs';
import { browser as launch, hide, open, serve, sleep, state } from './lib.mjs';

const minutes = Number(process.env.MINUTES ?? 60);
const hidden = Number(process.env.HIDDEN ?? 5);
const results = fileURLToPath(new URL('../../bench-results', import.meta.url));
const server = await serve();
const browser = await launch();
const page = await open(browser, server.url);
await state(page, 'playing');
await page.evaluate(() => {
  window.ages = [];
  document.querySelector('berry-mse').addEventListener('stats', ({ detail }) => {
    if (detail.age !== null) window.ages.push(detail.age);
  });
});
const tab = await page.context().newCDPSession(page);
await tab.send('Performance.enable');
const whole = await browser.newBrowserCDPSession();

/** Returns the private memory of the renderers, in MB. */
async function renderers() {
  const { processInfo } = await whole.send('SystemInfo.getProcessInfo');
  const own = ({ id }) => Number(/RssAnon:\s+(\d+)/.exec(readFileSync(`/proc/${id}/status`))?.[1] ?? 0) / 1024;
  return processInfo.filter(({ type }) => type === 'renderer').reduce((sum, one) => sum + own(one), 0);
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const kept = [];
console.log(`${'minute'.padStart(6)} ${'age ms'.padStart(8)} ${'script MB'.padStart(10)} ${'renderer MB'.padStart(12)} ${'skipped'.padStart(8)}`);
for (let minute = 1; minute <= minutes; minute++) {
  await sleep(60_000);
  const ages = await page.evaluate(() => window.ages.splice(0));
  const { metrics } = await tab.send('Performance.getMetrics');
  const heap = metrics.find(({ name }) => name === 'JSHeapUsedSize').value / 1e6;
  const stats = await page.evaluate(() => document.querySelector('berry-mse').stats);
  const row = { minute, age: median(ages), heap, renderer: await renderers(), skipped: stats.skipped, policy: stats.policy };
  kept.push(row);
  console.log(`${String(minute).padStart(6)} ${row.age.toFixed(1).padStart(8)} ${heap.toFixed(1).padStart(10)} `
    + `${row.renderer.toFixed(0).padStart(12)} ${String(row.skipped).padStart(8)}`);
}

// Uses a new page, because nothing in the page under test may store every frame.
const other = await open(browser, server.url, { before: notes });
await state(other, 'playing');
const life = await other.context().newCDPSession(other);
await hide(other, true);
await sleep(6000);
await life.send('Page.setWebLifecycleState', { state: 'frozen' });
await sleep(hidden * 60_000);
await life.send('Page.setWebLifecycleState', { state: 'active' });
const moment = await other.evaluate(() => { window.shown.length = 0; return performance.now(); });
await hide(other, false);
await other.waitForFunction(() => window.shown.length > 30);
const [, back] = await other.evaluate(() => window.shown.find(([, , , lag]) => lag < 0.2) ?? [0, Infinity]);
const away = back - moment;
console.log(`hidden for ${hidden} minutes, then shown: live after ${away.toFixed(0)} ms`);
page.complaints.push(...other.complaints);

await browser.close();
await server.stop();
mkdirSync(results, { recursive: true });
writeFileSync(`${results}/soak.json`, JSON.stringify(kept));
const quarter = (n, key) => median(kept.slice((n * minutes) / 4, ((n + 1) * minutes) / 4).map((row) => row[key]));
const drift = minutes < 8 ? 0 : quarter(3, 'age') - quarter(1, 'age');
const grown = minutes < 8 ? 0 : quarter(3, 'renderer') - 1.1 * quarter(1, 'renderer') - 20;
if (page.complaints.length) console.log(`the page logged errors: ${page.complaints}`);
if (drift > 20) console.log(`failed: the age has drifted by ${drift} ms`);
if (grown > 0) console.log('failed: the memory use grows');
if (away > 300) console.log('failed: the page must be live within 300 ms of being shown');
process.exit(drift > 20 || grown > 0 || away > 300 || page.complaints.length ? 1 : 0);
