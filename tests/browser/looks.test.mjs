// Takes screenshots of every state, on phone and desktop, light and dark, and stores them in results/.
// The test checks that nothing extends beyond the screen.

import { after, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { browser as launch, open, results, serve, sleep, state } from './lib.mjs';

let browser;
before(async () => { browser = await launch(); });
after(async () => { await browser?.close(); });

const looks = [];
for (const [device, options] of Object.entries({
  phone: { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 },
  desktop: { viewport: { width: 1280, height: 800 } },
})) {
  for (const colorScheme of ['light', 'dark']) looks.push([`${device}-${colorScheme}`, { ...options, colorScheme }]);
}

/** Takes a screenshot. Checks that nothing extends beyond the screen, and that the footer is visible. */
async function shot(page, look, name) {
  const { over, footer, height } = await page.evaluate(() => {
    const { bottom } = document.querySelector('footer').getBoundingClientRect();
    const { scrollWidth, clientWidth } = document.documentElement;
    const cut = [...document.querySelectorAll('footer *')].filter((element) => {
      const box = element.getBoundingClientRect();
      return box.width && (box.left < 0 || box.right > innerWidth + 0.5 || box.bottom > innerHeight + 0.5);
    });
    return { over: scrollWidth - clientWidth + cut.length, footer: bottom, height: innerHeight };
  });
  assert.equal(over, 0, `${name} on ${look}: something extends beyond the screen`);
  assert.ok(footer <= height + 1, `${name} on ${look}: the footer ends at ${footer} of ${height}`);
  await page.screenshot({ path: join(results, `${name}-${look}.png`) });
}

test('every state fits on every screen', async (t) => {
  const config = '[server]\nmax_connections_per_address = 200\n';
  const card = `${config}[[camera]]\nsource = "test-card"\n`;
  let server = await serve(card);
  t.after(() => server.stop());
  const dead = await serve(`${config}[[camera]]\nname = "front"\nsource = { command = ["no-such-program"] }\n`);
  t.after(dead.stop);
  const pages = [];
  for (const [look, options] of looks) {
    const page = await open(browser, server.url, options);
    pages.push([look, page]);
    await state(page, 'playing');
    await page.waitForFunction(() => document.querySelector('#facts').textContent.includes('fps'));
    await shot(page, look, 'playing');
    await page.keyboard.press('s');
    await page.waitForFunction(() => document.querySelector('berry-mse').shadowRoot.querySelector('.overlay').textContent.includes('fps'));
    await sleep(2500);
    await shot(page, look, 'statistics');
    await page.keyboard.press('s');

    const tap = () => {
      HTMLMediaElement.prototype.play = function () {
        this.pause();
        return Promise.reject(new DOMException('no', 'NotAllowedError'));
      };
    };
    const none = () => { for (const name of ['MediaSource', 'ManagedMediaSource', 'VideoDecoder']) delete window[name]; };
    const late = () => { window.WebSocket = class extends EventTarget { close() {} }; };
    for (const [name, script, url] of [['tap', tap, server.url], ['unsupported', none, server.url],
      ['connecting', late, server.url], ['no-camera', undefined, dead.url]]) {
      const other = await open(browser, url, { ...options, before: script });
      if (name === 'no-camera') {
        await other.waitForFunction(() => document.querySelector('berry-mse').message.includes('no-such-program'));
      } else {
        await state(other, name);
      }
      await sleep(300);
      await shot(other, look, name);
      await other.context().close();
    }
  }
  await server.stop();
  for (const [look, page] of pages) {
    await state(page, 'reconnecting');
    await shot(page, look, 'reconnecting');
  }
  server = await serve(card, server.port);
  for (const [look, page] of pages) {
    await state(page, 'playing');
    await page.evaluate(() => { Object.assign(document.querySelector('berry-mse'), { controls: true }); });
    if (look.startsWith('desktop')) await page.mouse.move(600, 400);
    await shot(page, look, 'controls');
    await page.evaluate(() => document.querySelector('berry-mse').pause());
    await shot(page, look, 'paused');
  }
});
