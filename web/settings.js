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
    say('update-state', `Not updated from here: ${now.why ?? ''}.`);
    return;
  }
  const busy = uploading || ['receiving', 'checking', 'installing'].includes(now.state);
  if (!uploading) {
    const failed = now.state === 'failed';
    say('update-state', SAYS[now.state](now) + (now.state === 'idle' && now.error
      ? ` The last update failed: ${now.error}.` : ''), failed);
    at('progress').hidden = !busy;
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
  const [general, update] = await Promise.all([ask('api/status'), ask('api/update')]);
  let wait = ASK.idle;
  if (general.ok) {
    const now = JSON.parse(general.text);
    at('version').textContent = `BerryMSE ${now.version}`;
    show('problem', now.config_error);
    at('open').hidden = now.password;
    if (now.reboot_needed) say('reboot-state', 'Needed for what was changed under [system] or [network].');
  }
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
