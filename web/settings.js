// The page for settings and updates. What it calls is described in docs/api.md.

/** How often is asked, milliseconds: while an update goes on, and otherwise. */
const ASK = { busy: 1000, idle: 10000 };
/** So long a machine may be away while it restarts, milliseconds. */
const RESTART = 180000;

const at = (id) => document.getElementById(id);
const config = at('config');
/** Which text was loaded: whoever saves another one in between is not overwritten. */
let etag = null;
let loaded = '';
let uploading = false;
let installed = false;
let timer = 0;
/** This machine's, before .local. */
let name = 'berrymse';

const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/** Says something in one of the lines for that. */
function say(id, text, wrong = false) {
  at(id).textContent = text;
  at(id).classList.toggle('wrong', wrong);
}

function show(id, text) {
  at(id).hidden = !text;
  at(id).textContent = text ?? '';
}

/** An answer's words, or what the browser says where there is none. */
async function ask(path, options = {}) {
  try {
    const response = await fetch(path, { cache: 'no-store', ...options });
    const text = await response.text();
    return { ok: response.ok, status: response.status, headers: response.headers, text };
  } catch {
    return { ok: false, status: 0, text: 'the machine does not answer' };
  }
}

// ---- Settings ----

async function load(said = '') {
  const answer = await ask('api/config');
  const none = answer.status === 404;
  if (answer.ok || none) {
    etag = answer.ok ? answer.headers.get('etag') : null;
    loaded = answer.ok ? answer.text : '';
    config.value = loaded;
  }
  // With a mistake in the file it is not shown to everybody, and still can be replaced.
  config.disabled = answer.status === 0 || answer.status === 401;
  config.classList.remove('wrong');
  say('config-state', answer.ok ? said : answer.text, !answer.ok);
  edited();
}

function edited() {
  at('save').disabled = config.disabled || config.value === loaded;
}

async function save() {
  at('save').disabled = true;
  say('config-state', 'Saving…');
  const headers = etag ? { 'If-Match': etag } : {};
  const answer = await ask('api/config', { method: 'PUT', body: config.value, headers });
  config.classList.toggle('wrong', answer.status === 422);
  if (!answer.ok) {
    at('save').disabled = false;
    say('config-state', answer.status === 422 ? mistake(JSON.parse(answer.text)) : answer.text, true);
    return;
  }
  const { reboot } = JSON.parse(answer.text);
  // The server starts anew with it.
  await back(15000);
  await load(reboot ? 'Saved. It is in force after a restart of the machine.' : 'Saved, and in force.');
  status();
}

/** Puts the cursor where it is wrong, and says what. */
function mistake({ error, line, column }) {
  if (!line) return error;
  const lines = config.value.split('\n');
  const start = lines.slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
  config.focus();
  config.setSelectionRange(start, start + (lines[line - 1] ?? '').length);
  // Not every browser scrolls to what is selected.
  config.scrollTop = (line - 4) * (config.scrollHeight / lines.length);
  return `Line ${line}, column ${column}: ${error}`;
}

/** Waits until the server answers again. */
async function back(patience) {
  const end = Date.now() + patience;
  do {
    await sleep(500);
    if ((await ask('api/status')).status !== 0) return true;
  } while (Date.now() < end);
  return false;
}

// ---- Wi-Fi ----

// ISO 3166: the countries whose radio rules the kernel knows.
const COUNTRIES = 'AD AE AF AI AL AM AN AR AS AT AU AW AZ BA BB BD BE BF BG BH BL BM BN BO BR BS BT BY BZ CA CF CH CI CL CN '
  + 'CO CR CU CX CY CZ DE DK DM DO DZ EC EE EG ES ET FI FM FR GB GD GE GF GH GL GP GR GT GU GY HK HN HR HT HU '
  + 'ID IE IL IN IR IS IT JM JO JP KE KH KN KP KR KW KY KZ LB LC LI LK LS LT LU LV MA MC MD ME MF MH MK MN MO '
  + 'MP MQ MR MT MU MV MW MX MY NG NI NL NO NP NZ OM PA PE PF PG PH PK PL PM PR PT PW PY QA RE RO RS RU RW SA '
  + 'SE SG SI SK SN SR SV SY TC TD TG TH TN TR TT TW TZ UA UG US UY UZ VC VE VI VN VU WF WS XK YE YT ZA ZW';
/** In the list of networks: none of these. */
const ANOTHER = '';
/** What is in the form: it is not filled in again while somebody types. */
let offered = null;
/** What was sent to be joined. */
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
  } catch { /* The codes will do. */ }
  const all = COUNTRIES.split(' ').map((code) => [code, name(code)]);
  if (chosen && !all.some(([code]) => code === chosen)) all.push([chosen, name(chosen)]);
  all.sort((a, b) => a[1].localeCompare(b[1]));
  at('wifi-country').replaceChildren(option('', 'Choose…'), ...all.map(([code, text]) => option(code, text)));
  const here = chosen ?? navigator.language.split('-')[1] ?? '';
  at('wifi-country').value = all.some(([code]) => code === here) ? here : '';
}

const bars = (signal) => (signal >= -60 ? 'strong' : signal >= -75 ? 'fair' : 'weak');

function fillWifi(now) {
  const names = now.networks.map(({ ssid, signal, locked }) => option(ssid, `${ssid} (${bars(signal)}${locked ? '' : ', open'})`));
  if (now.ssid && !now.networks.some(({ ssid }) => ssid === now.ssid)) names.unshift(option(now.ssid, now.ssid));
  at('wifi-network').replaceChildren(...names, option(ANOTHER, names.length ? 'Another…' : 'Its name:'));
  at('wifi-network').value = now.ssid ?? names[0]?.value ?? ANOTHER;
  fillCountries(now.country);
  chosen();
}

function chosen() {
  at('wifi-name').hidden = at('wifi-network').value !== ANOTHER;
}

function tellWifi(now) {
  at('wifi').hidden = !now.available;
  if (!now.available) return;
  name = now.host;
  const offer = JSON.stringify([now.networks, now.ssid, now.country]);
  if (offer !== offered && !at('wifi-form').contains(document.activeElement)) {
    offered = offer;
    fillWifi(now);
  }
  const failed = now.error ? `${now.error[0] === '"' ? '' : 'Not joined: '}${now.error}.` : '';
  if (joining) return;
  if (now.joined) say('wifi-state', `This machine is in the network ${now.joined}.`);
  else if (failed) say('wifi-state', failed, true);
  else if (now.joining) say('wifi-state', `Joining ${now.joining}…`);
  else if (now.access_point) {
    say('wifi-state', `You are in this machine's own network, ${now.access_point}. Tell it which one to join.`);
  } else say('wifi-state', 'No wireless network is configured.');
}

async function join(event) {
  event.preventDefault();
  const ssid = at('wifi-network').value || at('wifi-name').value;
  const country = at('wifi-country').value;
  if (!ssid || !country) {
    say('wifi-state', ssid ? 'Which country is this machine in?' : 'What is the network called?', true);
    return;
  }
  const psk = at('wifi-password').value;
  at('wifi-join').disabled = true;
  joining = ssid;
  say('wifi-state', 'Saving…');
  const body = JSON.stringify({ ssid, country, ...(psk && { psk }) });
  const answer = await ask('api/wifi', { method: 'PUT', body });
  at('wifi-join').disabled = false;
  if (!answer.ok) {
    joining = null;
    say('wifi-state', answer.status === 422 ? JSON.parse(answer.text).error : answer.text, true);
    return;
  }
  at('wifi-password').value = '';
  say('wifi-state', `Saved. This machine joins ${ssid} now, and leaves its own network: connect to ${ssid}, too, `
    + `and open http://${name}.local/. If it cannot join, its own network is back within a minute, and this page `
    + 'says why.');
  load();
  // Whoever is still here then, through a cable or because it failed, is told how it went.
  setTimeout(() => { joining = null; status(); }, 20000);
}

// ---- Updates ----

const SAYS = {
  idle: (now) => `Version ${now.version} runs.`,
  receiving: () => 'Uploading…',
  checking: () => 'Looking into the update…',
  installing: (now) => `Installing version ${now.installing ?? ''}: ${now.step ?? ''}`,
  installed: (now) => `Version ${now.installing} is installed. It runs after a restart.`,
  failed: (now) => `Not installed: ${now.error}.`,
};

function tellUpdate(now) {
  at('update-form').hidden = !now.available;
  at('check').hidden = !now.available;
  if (!now.available) {
    // RAUC may have ended in the middle of an update: that has its own words.
    const failed = now.state === 'failed';
    say('update-state', failed ? SAYS.failed(now) : `Not updated from here: ${now.why ?? ''}.`, failed);
    return;
  }
  const busy = uploading || ['receiving', 'checking', 'installing'].includes(now.state);
  if (!uploading) {
    const failed = now.state === 'failed';
    say('update-state', SAYS[now.state](now) + (now.state === 'idle' && now.error
      ? ` The last update failed: ${now.error}.` : ''), failed);
    at('progress').hidden = !busy && now.state !== 'installed';
    if (now.progress === undefined) at('progress').removeAttribute('value');
    else at('progress').value = now.progress;
  }
  show('detail', now.detail && `RAUC says: ${now.detail}`);
  show('fell-back', now.fell_back && `Version ${now.fell_back.version ?? 'that was installed last'} `
    + `did not prove itself: ${now.fell_back.why}. The one before runs again.`);
  at('offer').hidden = !now.offer || now.state === 'installed';
  at('offer').textContent = now.offer ? `Install version ${now.offer.version}` : '';
  at('offer').onclick = () => post({ url: now.offer.url });
  at('upload').disabled = busy || !at('bundle').files.length;
  at('offer').disabled = busy;
  at('check').disabled = busy;
  installed = now.state === 'installed';
}

async function status() {
  clearTimeout(timer);
  const [general, update, wifi] = await Promise.all([ask('api/status'), ask('api/update'), ask('api/wifi')]);
  let wait = ASK.idle;
  if (general.ok) {
    const now = JSON.parse(general.text);
    at('version').textContent = `BerryMSE ${now.version}`;
    show('problem', now.config_error);
    at('open').hidden = now.password;
    if (now.reboot_needed) say('reboot-state', 'Needed for what was changed under [system] or [network].');
  }
  if (wifi.ok) tellWifi(JSON.parse(wifi.text));
  if (update.ok) {
    const now = JSON.parse(update.text);
    tellUpdate(now);
    if (['receiving', 'checking', 'installing'].includes(now.state)) wait = ASK.busy;
  } else {
    say('update-state', update.text, true);
  }
  at('reboot').classList.toggle('main', installed);
  timer = setTimeout(status, document.hidden ? 60000 : wait);
}

async function post(request) {
  const body = JSON.stringify({ ...request, ...(request.url && { downgrade: at('downgrade').checked }) });
  const headers = { 'Content-Type': 'application/json' };
  const answer = await ask('api/update', { method: 'POST', body, headers });
  await status();
  if (!answer.ok) say('update-state', answer.text, true);
  else if (request.check && !JSON.parse(answer.text).offer) {
    say('update-state', `Version ${JSON.parse(answer.text).version} runs; there is no newer one.`);
  }
}

/** Uploads with a bar: fetch() does not tell how far it is. */
function upload() {
  const [file] = at('bundle').files;
  const request = new XMLHttpRequest();
  const done = async (text, wrong) => {
    uploading = false;
    at('progress').hidden = true;
    at('bundle').value = '';
    await status();
    if (wrong) say('update-state', text, true);
  };
  uploading = true;
  at('upload').disabled = true;
  at('progress').hidden = false;
  at('progress').value = 0;
  say('update-state', `Uploading ${file.name}…`);
  request.upload.onprogress = ({ loaded: bytes, total }) => { at('progress').value = 100 * bytes / total; };
  // All of it is there: progress is told from time to time only.
  request.upload.onload = () => { at('progress').value = 100; };
  request.onload = () => done(request.responseText, request.status >= 300);
  request.onerror = () => done('The upload broke off: try it again.', true);
  request.open('POST', 'api/update');
  request.setRequestHeader('Content-Type', 'application/octet-stream');
  if (at('downgrade').checked) request.setRequestHeader('Berrymse-Downgrade', 'true');
  request.send(file);
}

// ---- Restart ----

async function reboot() {
  at('reboot').disabled = true;
  const answer = await ask('api/reboot', { method: 'POST' });
  if (!answer.ok) {
    say('reboot-state', answer.text, true);
    at('reboot').disabled = false;
    return;
  }
  say('reboot-state', 'It restarts…');
  await sleep(5000);
  if (await back(RESTART)) location.reload();
  else say('reboot-state', 'It has not come back yet. Has it got another address?', true);
}

at('wifi-network').onchange = chosen;
at('wifi-show').onchange = () => { at('wifi-password').type = at('wifi-show').checked ? 'text' : 'password'; };
at('wifi-form').onsubmit = join;
config.oninput = edited;
at('save').onclick = save;
at('load').onclick = () => load();
at('bundle').onchange = () => { at('upload').disabled = uploading || !at('bundle').files.length; };
at('upload').onclick = upload;
at('check').onclick = () => post({ check: true });
at('reboot').onclick = reboot;
addEventListener('keydown', (event) => {
  if (event.key === 's' && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    if (!at('save').disabled) save();
  }
});
document.addEventListener('visibilitychange', () => document.hidden || status());
load();
status();
