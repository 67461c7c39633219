// The settings page, in Debian's Chromium, against the real executable. Only RAUC's part is a
// stand-in: answers of /api/update that the test makes up, where a test says so.

import { after, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { browser as launch, open, results, serve } from './lib.mjs';

let browser;
before(async () => { browser = await launch(); });
after(async () => { await browser?.close(); });

const CARD = '# mine\n[[camera]]\nname = "front"\nsource = "test-card"\n';
const text = (page, id) => page.locator(`#${id}`).textContent();
const says = (page, id, words) => page.waitForFunction(
  ([id, words]) => document.getElementById(id).textContent.includes(words), [id, words], { timeout: 15000 });

test('a mistake is shown with its line, and what is right is in force at once', async (t) => {
  const server = await serve(CARD);
  t.after(server.stop);
  const page = await open(browser, `${server.url}settings.html`);
  const box = page.locator('#config');
  await page.waitForFunction(() => document.getElementById('config').value.startsWith('# mine'));
  assert.equal(await box.inputValue(), CARD);
  assert.ok(await page.locator('#save').isDisabled(), 'nothing to save');

  await box.fill(`${CARD}widht = 640\n`);
  await page.click('#save');
  await says(page, 'config-state', 'Line 5, column 1: no such key: `widht`');
  const selected = await box.evaluate((box) => box.value.slice(box.selectionStart, box.selectionEnd));
  assert.equal(selected, 'widht = 640');
  assert.equal((await server.status()).cameras.length, 1);

  await box.fill(`${CARD}[[camera]]\nname = "back"\nsource = "test-card"\n`);
  await page.click('#save');
  await says(page, 'config-state', 'Saved, and in force.');
  assert.deepEqual((await server.status()).cameras.map(({ name }) => name), ['front', 'back']);

  await box.fill(`${CARD}[system]\nhostname = "porch"\n`);
  await page.keyboard.press('Control+s');
  await says(page, 'config-state', 'after a restart');
  await says(page, 'reboot-state', 'Needed');
  await page.click('#reboot');
  await says(page, 'reboot-state', 'for the appliance');
  await page.screenshot({ path: join(results, 'settings.png'), fullPage: true });
  // The browser reports every answer that is no success; the page has said each in words.
  assert.deepEqual(page.complaints.filter((text) => !text.startsWith('Failed to load resource')), []);
});

test('what somebody else has saved is not overwritten', async (t) => {
  const server = await serve(CARD);
  t.after(server.stop);
  const page = await open(browser, `${server.url}settings.html`);
  await page.waitForFunction(() => document.getElementById('config').value.startsWith('# mine'));
  const other = `${CARD}# theirs\n`;
  const answer = await fetch(`http://127.0.0.1:${server.port}/api/config`, { method: 'PUT', body: other });
  assert.equal(answer.status, 200);
  await page.locator('#config').fill(`${CARD}# ours\n`);
  // The server may be away for a moment.
  await page.waitForFunction(() => fetch('api/status').then(() => true, () => false));
  await page.click('#save');
  await says(page, 'config-state', 'somebody else');
  await page.click('#load');
  await page.waitForFunction(() => document.getElementById('config').value.endsWith('# theirs\n'));
});

test('where there is no RAUC, there is nothing to click', async (t) => {
  const server = await serve(CARD);
  t.after(server.stop);
  const page = await open(browser, `${server.url}settings.html`);
  await says(page, 'update-state', 'Not updated from here');
  assert.ok(await page.locator('#update-form').isHidden());
  assert.ok(await page.locator('#open').isVisible(), 'no password is set, and the page says so');
});

test('an upload with its bar, its end and its refusal (stand-in for RAUC)', async (t) => {
  const server = await serve(CARD);
  t.after(server.stop);
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  let now = { available: true, state: 'idle', version: '1.0', slots: [] };
  const posted = [];
  await page.route('**/api/update', async (route) => {
    const request = route.request();
    if (request.method() === 'POST') {
      posted.push({ body: request.postData(), downgrade: request.headers()['berrymse-downgrade'] });
      now = { ...now, state: 'installing', installing: '2.0', progress: 40, step: 'Copying image' };
    }
    await route.fulfill({ status: request.method() === 'POST' ? 202 : 200, json: now });
  });
  await page.goto(`${server.url}settings.html`);
  await says(page, 'update-state', 'Version 1.0 runs.');
  assert.ok(await page.locator('#upload').isDisabled());
  await page.setInputFiles('#bundle', { name: 'new.raucb', mimeType: 'x/x', buffer: Buffer.from('bundle') });
  await page.check('#downgrade');
  await page.click('#upload');
  await says(page, 'update-state', 'Installing version 2.0: Copying image');
  assert.deepEqual(posted, [{ body: 'bundle', downgrade: 'true' }]);
  assert.equal(await page.locator('#progress').evaluate((bar) => bar.value), 40);
  now = { ...now, state: 'failed', error: 'the update is damaged', detail: 'bad block' };
  await says(page, 'update-state', 'Not installed: the update is damaged.');
  assert.equal(await text(page, 'detail'), 'RAUC says: bad block');
  assert.ok(await page.locator('#progress').isHidden());
  now = { available: true, state: 'idle', version: '1.0', slots: [], offer: { version: '3.0', url: 'https://x/y' },
    fell_back: { version: '2.0', why: 'no picture' } };
  await page.reload();
  await says(page, 'fell-back', 'Version 2.0 did not prove itself: no picture.');
  await page.click('#offer');
  await says(page, 'update-state', 'Installing');
  assert.deepEqual(JSON.parse(posted[1].body), { url: 'https://x/y', downgrade: false });
});

test('Wi-Fi from a phone (stand-in for what the radio says)', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'berrymse-wifi-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const report = join(folder, 'wifi.json');
  const radio = (now) => writeFileSync(report, JSON.stringify(now));
  const networks = [{ ssid: 'Home', signal: -52, locked: true }, { ssid: 'Café "x"', signal: -80, locked: false }];
  radio({ access_point: 'BerryMSE-1a2b', networks });
  const server = await serve(CARD, 0, ['--wifi', report]);
  t.after(server.stop);
  const phone = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2, locale: 'de-DE' };
  const page = await open(browser, `${server.url}settings.html`, phone);
  await says(page, 'wifi-state', 'own network, BerryMSE-1a2b');
  assert.equal(await page.locator('#wifi-network').inputValue(), 'Home', 'the strongest');
  assert.equal(await page.locator('#wifi-country').inputValue(), 'DE', 'what the phone speaks');
  assert.ok(await page.locator('#wifi-name').isHidden());
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(over, 0, 'nothing sticks out');
  await page.screenshot({ path: join(results, 'wifi-phone.png') });

  await page.fill('#wifi-password', 'short');
  await page.tap('#wifi-join');
  await says(page, 'wifi-state', '8 to 63');
  await page.fill('#wifi-password', 'correct "horse"');
  await page.check('#wifi-show');
  assert.equal(await page.locator('#wifi-password').getAttribute('type'), 'text');
  await page.tap('#wifi-join');
  await says(page, 'wifi-state', 'connect to Home, too');
  // The server starts anew with it, and may be away for a moment.
  const saved = async () => (await page.waitForFunction(
    () => fetch('api/config').then((answer) => answer.text(), () => ''))).jsonValue();
  assert.equal(await saved(), `${CARD}\n[network]\nwifi = { ssid = "Home", psk = "********", country = "DE" }\n`);
  await page.screenshot({ path: join(results, 'wifi-phone-saved.png') });

  // It did not work: the phone comes back, and is told why.
  radio({ access_point: 'BerryMSE-1a2b', networks, error: 'the password for "Home" is wrong' });
  await page.reload();
  await says(page, 'wifi-state', 'Not joined: the password for "Home" is wrong.');
  await page.screenshot({ path: join(results, 'wifi-phone-wrong.png') });
  await page.selectOption('#wifi-network', { label: 'Another…' });
  await page.fill('#wifi-name', 'hidden');
  await page.tap('#wifi-join');
  await says(page, 'wifi-state', 'connect to hidden, too');
  assert.match(await saved(), /wifi = \{ ssid = "hidden", country = "DE" \}/);

  // A machine without a radio.
  rmSync(report);
  await page.reload();
  await says(page, 'update-state', 'Not updated from here');
  assert.ok(await page.locator('#wifi').isHidden());
});
