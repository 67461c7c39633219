// The settings page: configuration, Wi-Fi, updates, restart. docs/api.md describes the requests.

/** Interval between status requests: during an update, otherwise, and while the page is hidden. */
const STATUS_INTERVAL_MS = { updating: 1000, idle: 10000, hidden: 60000 };
/** Maximum time without the server: after the configuration is saved, and while the device restarts. */
const SAVE_TIMEOUT_MS = 15000;
const RESTART_TIMEOUT_MS = 180000;
/** Delay before the first request to a restarting device, which still responds for a moment. */
const RESTART_DELAY_MS = 5000;
/** Approximate time to join a Wi-Fi network. The result is shown afterwards. */
const JOIN_TIME_MS = 20000;
const RETRY_INTERVAL_MS = 500;

const byId = (id) => document.getElementById(id);
const config = byId('config');
/** The version of the loaded text. It is sent when saving, to avoid overwriting changes made elsewhere. */
let etag = null;
let loaded = '';
let uploading = false;
let installed = false;
let timer = 0;
/** This device's name on the network, without `.local`. */
let hostname = 'berrymse';

const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/** Sets the text of a status line. */
function setText(id, text, wrong = false) {
  byId(id).textContent = text;
  byId(id).classList.toggle('wrong', wrong);
}

function show(id, text) {
  byId(id).hidden = !text;
  byId(id).textContent = text ?? '';
}

/** Sends a request. `status` is 0 if there is no response. */
async function send(path, options = {}) {
  try {
    const response = await fetch(path, { cache: 'no-store', ...options });
    const text = await response.text();
    return { ok: response.ok, status: response.status, headers: response.headers, text };
  } catch {
    return { ok: false, status: 0, text: 'The device does not respond.' };
  }
}

// ---- Settings ----

/** Loads the configuration; `done` is the text for the status line. */
async function load(done = '') {
  const response = await send('api/config');
  // 404: no configuration exists yet.
  if (response.ok || response.status === 404) {
    etag = response.ok ? response.headers.get('etag') : null;
    loaded = response.ok ? response.text : '';
    config.value = loaded;
  }
  // After other errors, the text can still be replaced.
  config.disabled = response.status === 0 || response.status === 401;
  config.classList.remove('wrong');
  setText('config-state', response.ok ? done : response.text, !response.ok);
  updateSaveButton();
}

function updateSaveButton() {
  byId('save').disabled = config.disabled || config.value === loaded;
}

async function save() {
  byId('save').disabled = true;
  setText('config-state', 'Saving…');
  const headers = etag ? { 'If-Match': etag } : {};
  const response = await send('api/config', { method: 'PUT', body: config.value, headers });
  config.classList.toggle('wrong', response.status === 422);
  if (!response.ok) {
    byId('save').disabled = false;
    setText('config-state', response.status === 422 ? showMistake(JSON.parse(response.text)) : response.text, true);
    return;
  }
  const { reboot } = JSON.parse(response.text);
  // The server restarts with the new configuration.
  await waitForServer(SAVE_TIMEOUT_MS);
  await load(reboot ? 'Saved. Some changes take effect after a restart.' : 'Saved. The changes are in effect.');
  updateStatus();
}

/** Selects the line with the error, and returns the text for the status line. */
function showMistake({ error, line, column }) {
  if (!line) return error;
  const lines = config.value.split('\n');
  const start = lines.slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
  config.focus();
  config.setSelectionRange(start, start + (lines[line - 1] ?? '').length);
  // Some browsers do not scroll to the selection.
  config.scrollTop = (line - 4) * (config.scrollHeight / lines.length);
  return `Line ${line}, column ${column}: ${error}`;
}

/** Waits until the server responds. Returns whether it did. */
async function waitForServer(timeout) {
  const end = Date.now() + timeout;
  do {
    await sleep(RETRY_INTERVAL_MS);
    if ((await send('api/status')).status !== 0) return true;
  } while (Date.now() < end);
  return false;
}

// ---- Wi-Fi ----

// ISO 3166 codes of the countries in the kernel's regulatory database.
const COUNTRIES = 'AD AE AF AI AL AM AN AR AS AT AU AW AZ BA BB BD BE BF BG BH BL BM BN BO BR BS BT BY BZ CA CF CH CI CL CN '
  + 'CO CR CU CX CY CZ DE DK DM DO DZ EC EE EG ES ET FI FM FR GB GD GE GF GH GL GP GR GT GU GY HK HN HR HT HU '
  + 'ID IE IL IN IR IS IT JM JO JP KE KH KN KP KR KW KY KZ LB LC LI LK LS LT LU LV MA MC MD ME MF MH MK MN MO '
  + 'MP MQ MR MT MU MV MW MX MY NG NI NL NO NP NZ OM PA PE PF PG PH PK PL PM PR PT PW PY QA RE RO RS RU RW SA '
  + 'SE SG SI SK SN SR SV SY TC TD TG TH TN TR TT TW TZ UA UG US UY UZ VC VE VI VN VU WF WS XK YE YT ZA ZW';
/** The value of the list entry for a network that was not found. */
const OTHER_NETWORK = '';
/** The data that the form was last filled with. The form is filled again only when the data changes. */
let formSource = null;
/** The network that the user has asked the device to join. */
let joining = null;

function option(value, text) {
  const element = document.createElement('option');
  element.value = value;
  element.textContent = text;
  return element;
}

function fillCountries(chosen) {
  let name = (code) => code;
  try {
    const names = new Intl.DisplayNames([navigator.language, 'en'], { type: 'region' });
    name = (code) => names.of(code);
  } catch { /* Show the codes instead. */ }
  const all = COUNTRIES.split(' ').map((code) => [code, name(code)]);
  if (chosen && !all.some(([code]) => code === chosen)) all.push([chosen, name(chosen)]);
  all.sort((a, b) => a[1].localeCompare(b[1]));
  byId('wifi-country').replaceChildren(option('', 'Choose a country'), ...all.map(([code, text]) => option(code, text)));
  const here = chosen ?? navigator.language.split('-')[1] ?? '';
  byId('wifi-country').value = all.some(([code]) => code === here) ? here : '';
}

const strength = (signal) => (signal >= -60 ? 'strong' : signal >= -75 ? 'fair' : 'weak');

function fillWifi(now) {
  const names = now.networks.map(({ ssid, signal, locked }) => option(ssid, `${ssid} (${strength(signal)}${locked ? '' : ', open'})`));
  if (now.ssid && !now.networks.some(({ ssid }) => ssid === now.ssid)) names.unshift(option(now.ssid, now.ssid));
  byId('wifi-network').replaceChildren(...names, option(OTHER_NETWORK, 'Other network…'));
  byId('wifi-network').value = now.ssid ?? names[0]?.value ?? OTHER_NETWORK;
  fillCountries(now.country);
  showNameField();
}

function showNameField() {
  byId('wifi-name').hidden = byId('wifi-network').value !== OTHER_NETWORK;
}

function showWifi(now) {
  byId('wifi').hidden = !now.available;
  if (!now.available) return;
  hostname = now.host;
  const source = JSON.stringify([now.networks, now.ssid, now.country]);
  if (source !== formSource && !byId('wifi-form').contains(document.activeElement)) {
    formSource = source;
    fillWifi(now);
  }
  const failed = now.error ? `${now.error[0] === '"' ? '' : 'Could not join the network: '}${now.error}.` : '';
  if (joining) return;
  if (now.joined) setText('wifi-state', `Connected to ${now.joined}.`);
  else if (failed) setText('wifi-state', failed, true);
  else if (now.joining) setText('wifi-state', `Joining ${now.joining}…`);
  else if (now.access_point) {
    setText('wifi-state', `You are connected to this device's own network, ${now.access_point}. Choose the network for it to join.`);
  } else setText('wifi-state', 'No Wi-Fi network is configured.');
}

async function joinWifi(event) {
  event.preventDefault();
  const ssid = byId('wifi-network').value || byId('wifi-name').value;
  const country = byId('wifi-country').value;
  if (!ssid || !country) {
    setText('wifi-state', ssid ? 'Choose the country where this device is used.' : 'Enter the network name.', true);
    return;
  }
  const psk = byId('wifi-password').value;
  byId('wifi-join').disabled = true;
  joining = ssid;
  setText('wifi-state', 'Saving…');
  const body = JSON.stringify({ ssid, country, ...(psk && { psk }) });
  const response = await send('api/wifi', { method: 'PUT', body });
  byId('wifi-join').disabled = false;
  if (!response.ok) {
    joining = null;
    setText('wifi-state', response.status === 422 ? JSON.parse(response.text).error : response.text, true);
    return;
  }
  byId('wifi-password').value = '';
  setText('wifi-state', `Saved. The device now leaves its own network and joins ${ssid}. Connect to ${ssid} as well, `
    + `then open http://${hostname}.local/. If the device cannot join, its own network returns within a minute, and `
    + 'this page shows why.');
  load();
  // For users who are still connected by then: over a cable, or because the device could not join.
  setTimeout(() => { joining = null; updateStatus(); }, JOIN_TIME_MS);
}

// ---- Updates ----

/** The text for each update state. */
const UPDATE_TEXTS = {
  idle: (now) => `Version ${now.version} is running.`,
  receiving: () => 'Uploading…',
  checking: () => 'Checking the update…',
  installing: (now) => `Installing version ${now.installing ?? ''}: ${now.step ?? ''}`,
  installed: (now) => `Version ${now.installing} is installed. Restart the device to use it.`,
  failed: (now) => `The update failed: ${now.error}.`,
};

/** Texts for the files that start the device. */
const BOOT_FILES_TEXTS = {
  current: ({ why }) => why && `${why[0].toUpperCase()}${why.slice(1)}.`,
  waiting: ({ why }) => `New boot files take effect after the next restart.${why ? ` Note: ${why}.` : ''}`,
  reverted: ({ why }) => `The boot files were not updated: ${why}.`,
  refused: ({ why }) => `The boot files were not updated: ${why}.`,
};

/** A list of cameras in words: `camera "a"`, `cameras "a" and "b"`. */
function inWords(names) {
  const quoted = names.map((name) => `"${name}"`);
  const last = quoted.pop();
  return quoted.length ? `cameras ${quoted.join(', ')} and ${last}` : `camera ${last}`;
}

/** Shows which cameras the update has lost, and what to do. */
function showLost({ trial, state, missing_cameras: missing = [], fell_back: failed }) {
  const missingNames = missing.map(({ name }) => name);
  const lost = failed?.cameras ?? [];
  const before = (names) => `The ${inWords(names)} delivered video before the update and ${names.length === 1 ? 'is' : 'are'} missing now.`;
  const names = lost.length ? lost : missingNames;
  const [it, these] = names.length === 1 ? ['it', 'this camera'] : ['them', 'these cameras'];
  let text = null;
  if (lost.length && missing.length) {
    text = `The ${inWords(missingNames)} ${missing.length === 1 ? 'is' : 'are'} missing in the previous version, too, so the update is `
      + `not the cause. Plug ${missing.length === 1 ? 'it' : 'them'} in and install the update again, or install it without ${these}.`;
  } else if (lost.length) {
    text = `The ${inWords(lost)} did not work in the new version. If ${lost.length === 1 ? 'it' : 'they'} had been unplugged, install the update again. Otherwise, `
      + `wait for another update, or install the new version without ${these}.`;
  } else if (missing.length && trial) {
    text = `${before(names)} Plug ${it} in. Otherwise, the previous version will start again in a few minutes.`;
  } else if (missing.length && state === 'installed') {
    text = `${before(names)} Plug ${it} in before you restart the device, because the new version stays only if it shows ${these}.`;
  }
  show('lost-text', text);
  byId('lost').hidden = !text;
  byId('without-cameras').textContent = `Install without ${these}`;
}

function showUpdate(now) {
  show('boot-files', now.boot_files && BOOT_FILES_TEXTS[now.boot_files.state]?.(now.boot_files));
  byId('update-form').hidden = !now.available;
  byId('check').hidden = !now.available;
  if (!now.available) {
    // If RAUC exited during an update, the failure is shown.
    const failed = now.state === 'failed';
    setText('update-state', failed ? UPDATE_TEXTS.failed(now) : `Updates are not available: ${now.why ?? ''}.`, failed);
    return;
  }
  const busy = uploading || ['receiving', 'checking', 'installing'].includes(now.state);
  if (!uploading) {
    const failed = now.state === 'failed';
    setText('update-state', UPDATE_TEXTS[now.state](now) + (now.state === 'idle' && now.error
      ? ` The last update failed: ${now.error}.` : ''), failed);
    byId('progress').hidden = !busy && now.state !== 'installed';
    if (now.progress === undefined) byId('progress').removeAttribute('value');
    else byId('progress').value = now.progress;
  }
  show('detail', now.detail && `Message from RAUC: ${now.detail}`);
  show('fell-back', now.fell_back && `${now.fell_back.version ? `Version ${now.fell_back.version}` : 'The latest version'} `
    + `did not work: ${now.fell_back.why}. The previous version is running again.`);
  showLost(now);
  byId('offer').hidden = !now.offer || now.state === 'installed';
  byId('offer').textContent = now.offer ? `Install version ${now.offer.version}` : '';
  byId('offer').onclick = () => requestUpdate({ url: now.offer.url });
  byId('upload').disabled = busy || !byId('bundle').files.length;
  byId('offer').disabled = busy;
  byId('check').disabled = busy;
  byId('without-cameras').disabled = busy;
  installed = now.state === 'installed';
}

async function updateStatus() {
  clearTimeout(timer);
  const [general, update, wifi] = await Promise.all([send('api/status'), send('api/update'), send('api/wifi')]);
  let interval = STATUS_INTERVAL_MS.idle;
  if (general.ok) {
    const now = JSON.parse(general.text);
    byId('version').textContent = `BerryMSE ${now.version}`;
    show('problem', now.config_error);
    byId('open').hidden = now.password;
    if (now.reboot_needed) setText('reboot-state', 'Restart the device for the changes to take effect.');
  }
  if (wifi.ok) showWifi(JSON.parse(wifi.text));
  if (update.ok) {
    const now = JSON.parse(update.text);
    showUpdate(now);
    if (['receiving', 'checking', 'installing'].includes(now.state)) interval = STATUS_INTERVAL_MS.updating;
  } else {
    setText('update-state', update.text, true);
  }
  byId('reboot').classList.toggle('main', installed);
  timer = setTimeout(updateStatus, document.hidden ? STATUS_INTERVAL_MS.hidden : interval);
}

async function requestUpdate(request) {
  const body = JSON.stringify({ ...request, ...(request.url && { downgrade: byId('downgrade').checked }) });
  const headers = { 'Content-Type': 'application/json' };
  const response = await send('api/update', { method: 'POST', body, headers });
  await updateStatus();
  if (!response.ok) setText('update-state', response.text, true);
  else if (request.check && !JSON.parse(response.text).offer) {
    setText('update-state', `Version ${JSON.parse(response.text).version} is the latest.`);
  }
}

/** Uploads a file and shows the progress, which fetch() does not report. */
function upload() {
  const [file] = byId('bundle').files;
  const request = new XMLHttpRequest();
  const done = async (text, wrong) => {
    uploading = false;
    byId('progress').hidden = true;
    byId('bundle').value = '';
    await updateStatus();
    if (wrong) setText('update-state', text, true);
  };
  uploading = true;
  byId('upload').disabled = true;
  byId('progress').hidden = false;
  byId('progress').value = 0;
  setText('update-state', `Uploading ${file.name}…`);
  request.upload.onprogress = ({ loaded: bytes, total }) => { byId('progress').value = 100 * bytes / total; };
  // Progress events are infrequent: the last one may fire long before the upload ends.
  request.upload.onload = () => { byId('progress').value = 100; };
  request.onload = () => done(request.responseText, request.status >= 300);
  request.onerror = () => done('The upload was interrupted. Try again.', true);
  request.open('POST', 'api/update');
  request.setRequestHeader('Content-Type', 'application/octet-stream');
  if (byId('downgrade').checked) request.setRequestHeader('Berrymse-Downgrade', 'true');
  request.send(file);
}

// ---- Restart ----

async function reboot() {
  byId('reboot').disabled = true;
  const response = await send('api/reboot', { method: 'POST' });
  if (!response.ok) {
    setText('reboot-state', response.text, true);
    byId('reboot').disabled = false;
    return;
  }
  setText('reboot-state', 'Restarting…');
  await sleep(RESTART_DELAY_MS);
  if (await waitForServer(RESTART_TIMEOUT_MS)) location.reload();
  else setText('reboot-state', 'The device has not come back. Its address may have changed.', true);
}

byId('wifi-network').onchange = showNameField;
byId('wifi-show').onchange = () => { byId('wifi-password').type = byId('wifi-show').checked ? 'text' : 'password'; };
byId('wifi-form').onsubmit = joinWifi;
config.oninput = updateSaveButton;
byId('save').onclick = save;
byId('load').onclick = () => load();
byId('bundle').onchange = () => { byId('upload').disabled = uploading || !byId('bundle').files.length; };
byId('upload').onclick = upload;
byId('check').onclick = () => requestUpdate({ check: true });
byId('without-cameras').onclick = () => requestUpdate({ without_cameras: true });
byId('reboot').onclick = reboot;
addEventListener('keydown', (event) => {
  if (event.key === 's' && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    if (!byId('save').disabled) save();
  }
});
document.addEventListener('visibilitychange', () => document.hidden || updateStatus());
load();
updateStatus();
