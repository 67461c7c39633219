// The pages in docs/examples, each served by another site.

import { after, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { browser as launch, files, open, otherHost, serve, site, state } from './lib.mjs';

let browser;
before(async () => { browser = await launch(); });
after(async () => { await browser?.close(); });

const here = fileURLToPath(new URL('.', import.meta.url));
const example = (name) => readFileSync(new URL(`../../docs/examples/${name}.html`, import.meta.url), 'utf8');

for (const name of ['plain', 'react', 'vue']) {
  test(`docs/examples/${name}.html, served by another host, plays and shows the age`, async (t) => {
    let html;
    const modules = files(here);
    const other = await site((path) => (path === '/' ? html : path.startsWith('/node_modules/') ? modules(path) : undefined));
    t.after(other.stop);
    const origin = `http://${otherHost}:${other.port}`;
    const server = await serve(`[server]\norigins = ["${origin}"]\n[[camera]]\nname = "front"\nsource = "test-card"\n`);
    t.after(server.stop);
    html = example(name).replaceAll('http://cam.local:2020/', server.url);
    assert.ok(html.includes(server.url));
    const page = await open(browser, origin);
    t.after(() => page.context().close());
    await page.waitForFunction(() => document.querySelector('berry-mse')?.state);
    await state(page, 'playing');
    await page.waitForFunction(() => / ms$/.test(document.querySelector('output').textContent));
    const { src, shown } = await page.evaluate(() => {
      const { src, stats, video } = document.querySelector('berry-mse');
      return { src, shown: stats.shown && video.videoWidth };
    });
    assert.deepEqual([src, shown], [`${server.url}live/front`, 1280]);
    assert.deepEqual(page.complaints, []);
  });
}
