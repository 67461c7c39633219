// The settings page in Chromium, with the real server. Tests whose names mention a stand-in replace the
// responses of /api/update and /api/wifi.

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

test('an error is shown with its line, and a valid configuration takes effect immediately', async (t) => {
  const server = await serve(CARD);
  t.after(server.stop);
  const page = await open(browser, `${server.url}settings.html`);
  const box = page.locator('#config');
  await page.waitForFunction(() => document.getElementById('config').value.startsWith('# mine'));
  assert.equal(await box.inputValue(), CARD);
  assert.ok(await page.locator('#save').isDisabled(), 'nothing needs to be saved');

  await box.fill(`${CARD}widht = 640\n`);
  await page.click('#save');
  await says(page, 'config-state', 'Line 5, column 1: ');
  assert.match(await text(page, 'config-state'), /`widht`/);
  const selected = await box.evaluate((box) => box.value.slice(box.selectionStart, box.selectionEnd));
  assert.equal(selected, 'widht = 640');
  assert.equal((await server.status()).cameras.length, 1);

  await box.fill(`${CARD}[[camera]]\nname = "back"\nsource = "test-card"\n`);
  await page.click('#save');
  await says(page, 'config-state', 'Saved. The changes are in effect.');
  assert.deepEqual((await server.status()).cameras.map(({ name }) => name), ['front', 'back']);

  await box.fill(`${CARD}[system]\nhostname = "porch"\n`);
  await page.keyboard.press('Control+s');
  await says(page, 'config-state', 'take effect after a restart');
  await says(page, 'reboot-state', 'Restart the device');
  await page.click('#reboot');
  // Only the appliance can be restarted: the server returns an error.
  await page.waitForFunction(() => document.getElementById('reboot-state').classList.contains('wrong'));
  await page.screenshot({ path: join(results, 'settings.png'), fullPage: true });
  // The browser reports every response with an error status; the page has shown each of them.
  assert.deepEqual(page.complaints.filter((text) => !text.startsWith('Failed to load resource')), []);
});

test('changes saved elsewhere are not overwritten', async (t) => {
  const server = await serve(CARD);
  t.after(server.stop);
  const page = await open(browser, `${server.url}settings.html`);
  await page.waitForFunction(() => document.getElementById('config').value.startsWith('# mine'));
  const other = `${CARD}# theirs\n`;
  const answer = await fetch(`http://127.0.0.1:${server.port}/api/config`, { method: 'PUT', body: other });
  assert.equal(answer.status, 200);
  await page.locator('#config').fill(`${CARD}# ours\n`);
  // The server restarts with the configuration.
  await page.evaluate(async () => {
    while (!await fetch('api/status').catch(() => null)) await new Promise((resolve) => { setTimeout(resolve, 100); });
  });
  await page.click('#save');
  await page.waitForFunction(() => document.getElementById('config-state').classList.contains('wrong'));
  const now = await fetch(`http://127.0.0.1:${server.port}/api/config`);
  assert.equal(await now.text(), other);
  await page.click('#load');
  await page.waitForFunction(() => document.getElementById('config').value.endsWith('# theirs\n'));
});

test('without RAUC, no update is offered', async (t) => {
  const server = await serve(CARD);
  t.after(server.stop);
  const page = await open(browser, `${server.url}settings.html`);
  await says(page, 'update-state', 'Updates are not available');
  assert.ok(await page.locator('#update-form').isHidden());
  assert.ok(await page.locator('#open').isVisible(), 'the page says that no password is set');
});

test('an upload: progress, success and failure (with a stand-in for RAUC)', async (t) => {
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
  await says(page, 'update-state', 'Version 1.0 is running.');
  assert.ok(await page.locator('#upload').isDisabled());
  await page.setInputFiles('#bundle', { name: 'new.raucb', mimeType: 'x/x', buffer: Buffer.from('bundle') });
  await page.check('#downgrade');
  await page.click('#upload');
  await says(page, 'update-state', 'Installing version 2.0: Copying image');
  assert.deepEqual(posted, [{ body: 'bundle', downgrade: 'true' }]);
  assert.equal(await page.locator('#progress').evaluate((bar) => bar.value), 40);
  now = { ...now, state: 'failed', error: 'the update is damaged', detail: 'bad block' };
  await says(page, 'update-state', 'The update failed: the update is damaged.');
  assert.equal(await text(page, 'detail'), 'Message from RAUC: bad block');
  assert.ok(await page.locator('#progress').isHidden());
  now = { available: true, state: 'idle', version: '1.0', slots: [], offer: { version: '3.0', url: 'https://x/y' },
    fell_back: { version: '2.0', why: 'no picture' }, boot_files: { state: 'waiting' } };
  await page.reload();
  await says(page, 'fell-back', 'Version 2.0 did not work: no picture.');
  assert.equal(await text(page, 'boot-files'), 'New boot files take effect after the next restart.');
  now = { ...now, boot_files: { state: 'refused', why: 'they do not fit' } };
  await page.reload();
  await says(page, 'boot-files', 'The boot files were not updated: they do not fit.');
  now = { ...now, boot_files: { state: 'current' } };
  await page.reload();
  await says(page, 'fell-back', 'Version 2.0');
  assert.ok(await page.locator('#boot-files').isHidden());
  await page.click('#offer');
  await says(page, 'update-state', 'Installing');
  assert.deepEqual(JSON.parse(posted[1].body), { url: 'https://x/y', downgrade: false });
});

test('cameras that an update has lost, and the way to give them up (with a stand-in for RAUC)', async (t) => {
  const server = await serve(CARD);
  t.after(server.stop);
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  const idle = { available: true, state: 'idle', version: '1.0', slots: [] };
  const front = { name: 'front', kind: 'raspberry-pi' };
  const why = 'camera "front": shows the test card; it delivered pictures before the update';
  let now = { ...idle, version: '2.0', trial: true, missing_cameras: [front] };
  const posted = [];
  await page.route('**/api/update', async (route) => {
    if (route.request().method() === 'POST') {
      posted.push(JSON.parse(route.request().postData()));
      now = now.fell_back ? { ...idle, state: 'installed', installing: '2.0' } : idle;
    }
    await route.fulfill({ json: now });
  });
  // A new system: the old one will return.
  await page.goto(`${server.url}settings.html`);
  await says(page, 'lost-text', 'The camera "front" delivered video before the update and is missing now. Plug it in. '
    + 'Otherwise, the previous version will start again');
  await page.screenshot({ path: join(results, 'lost-camera.png'), fullPage: true });
  await page.getByRole('button', { name: 'Install without this camera' }).click();
  await page.locator('#lost').waitFor({ state: 'hidden' });
  assert.deepEqual(posted, [{ without_cameras: true }]);

  // The old system after the fallback: the camera is missing here, too.
  now = { ...idle, fell_back: { version: '2.0', why, cameras: ['front'] }, missing_cameras: [front] };
  await page.reload();
  await says(page, 'lost-text', 'The camera "front" is missing in the previous version, too, so the update is not the cause.');
  await says(page, 'fell-back', `Version 2.0 did not work: ${why}.`);
  await page.screenshot({ path: join(results, 'lost-camera-fallback.png'), fullPage: true });
  await page.click('#without-cameras');
  await says(page, 'update-state', 'Version 2.0 is installed. Restart the device to use it.');
  assert.deepEqual(posted[1], { without_cameras: true });
  assert.ok(await page.locator('#lost').isHidden());

  // The old system after the fallback: the cameras work here.
  now = { ...idle, fell_back: { version: '2.0', why, cameras: ['front', 'back'] } };
  await page.reload();
  await says(page, 'lost-text', 'The cameras "front" and "back" did not work in the new version.');
  assert.equal(await text(page, 'without-cameras'), 'Install without these cameras');

  // Unplugged between the installation and the restart.
  now = { ...idle, state: 'installed', installing: '2.0', missing_cameras: [front] };
  await page.reload();
  await says(page, 'lost-text', 'Plug it in before you restart the device');

  // A fallback for another reason.
  now = { ...idle, fell_back: { version: '2.0', why: 'it did not start' } };
  await page.reload();
  await says(page, 'fell-back', 'it did not start');
  assert.ok(await page.locator('#lost').isHidden());
});

test('Wi-Fi from a phone (with a stand-in for the radio)', async (t) => {
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
  assert.equal(await page.locator('#wifi-network').inputValue(), 'Home', 'the strongest network');
  assert.equal(await page.locator('#wifi-country').inputValue(), 'DE', 'from the language setting of the phone');
  assert.ok(await page.locator('#wifi-name').isHidden());
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(over, 0, 'nothing extends beyond the screen');
  await page.screenshot({ path: join(results, 'wifi-phone.png') });

  await page.fill('#wifi-password', 'short');
  await page.tap('#wifi-join');
  await says(page, 'wifi-state', '8 to 63');
  await page.fill('#wifi-password', 'correct "horse"');
  await page.check('#wifi-show');
  assert.equal(await page.locator('#wifi-password').getAttribute('type'), 'text');
  await page.tap('#wifi-join');
  await says(page, 'wifi-state', 'Connect to Home as well');
  // The server restarts with the configuration.
  const saved = () => page.evaluate(async () => {
    for (let tries = 0; tries < 100; tries++) {
      const response = await fetch('api/config').catch(() => null);
      if (response?.ok) return response.text();
      await new Promise((resolve) => { setTimeout(resolve, 100); });
    }
    return 'the server does not respond';
  });
  assert.equal(await saved(), `${CARD}\n[network]\nwifi = { ssid = "Home", psk = "********", country = "DE" }\n`);
  await page.screenshot({ path: join(results, 'wifi-phone-saved.png') });

  // The device could not join, so the phone is back on the device's network, and the page shows
  // why.
  radio({ access_point: 'BerryMSE-1a2b', networks, error: 'the password for "Home" is wrong' });
  await page.reload();
  await says(page, 'wifi-state', 'Could not join the network: the password for "Home" is wrong.');
  await page.screenshot({ path: join(results, 'wifi-phone-wrong.png') });
  await page.selectOption('#wifi-network', { label: 'Other network…' });
  await page.fill('#wifi-name', 'hidden');
  await page.tap('#wifi-join');
  await says(page, 'wifi-state', 'Connect to hidden as well');
  assert.match(await saved(), /wifi = \{ ssid = "hidden", country = "DE" \}/);

  // A device without a radio.
  rmSync(report);
  await page.reload();
  await says(page, 'update-state', 'Updates are not available');
  assert.ok(await page.locator('#wifi').isHidden());
});
