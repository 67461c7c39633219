// The live view: selects the camera, shows its status, and handles the buttons.

import './berrymse.js';

/**
 * Interval between status requests while the camera is playing, in all other states, and while the page
 * is hidden.
 */
const STATUS_INTERVAL_MS = { playing: 5000, other: 2000, hidden: 60000 };

const byId = (id) => document.getElementById(id);
const player = byId('player');
let timer = 0;

/** Returns the size, frame rate and bit rate, as far as they are known. */
function describe(camera) {
  const parts = [];
  if (camera.width) parts.push(`${camera.width}×${camera.height}`);
  if (camera.framerate) parts.push(`${Math.round(camera.framerate)} fps`);
  if (camera.bitrate) parts.push(`${(camera.bitrate / 1e6).toFixed(1)} Mbit/s`);
  if (camera.source.startsWith('the test card')) parts.push(camera.source);
  return parts.join(' · ');
}

/** Returns the camera name in the URL fragment, such as `#front`. Empty for the first camera. */
const selectedName = () => decodeURIComponent(location.hash.slice(1));

function selectCamera() {
  const name = selectedName();
  player.setAttribute('src', name ? `live/${encodeURIComponent(name)}` : 'live');
  updateStatus();
}

async function updateStatus() {
  clearTimeout(timer);
  try {
    const response = await fetch('api/status');
    if (response.ok) showStatus(await response.json());
  } catch {
    byId('facts').textContent = '';
  }
  const { hidden, other, [player.state]: interval = other } = STATUS_INTERVAL_MS;
  timer = setTimeout(updateStatus, document.hidden ? hidden : interval);
}

function showStatus({ cameras, password, config_error: mistake, missing_cameras: missing, reboot_needed: reboot }) {
  const camera = cameras.find(({ name }) => name === selectedName()) ?? cameras[0];
  // The default name, "camera", is not shown.
  const name = camera && camera.name !== 'camera' ? camera.name : null;
  byId('title').textContent = name ?? 'BerryMSE';
  document.title = name ? `${name} · BerryMSE` : 'BerryMSE';
  byId('facts').textContent = camera ? describe(camera) : '';
  const lost = missing && `Missing since the update: ${missing.join(', ')}. For what to do, open the settings.`;
  byId('problem').hidden = !mistake && !lost && !reboot;
  byId('problem').textContent = mistake ?? lost ?? 'Some changes take effect only after a restart. To restart, open the settings.';
  byId('no-password').hidden = password;
  byId('cameras').hidden = cameras.length < 2;
  const links = cameras.map(({ name }) => {
    const link = document.createElement('a');
    link.href = `#${encodeURIComponent(name)}`;
    link.textContent = name;
    if (name === camera.name) link.setAttribute('aria-current', 'page');
    return link;
  });
  // Replace the links only when they change, so that a focused link keeps the focus.
  if (byId('cameras').textContent !== links.map((link) => link.textContent).join('')
    || byId('cameras').querySelector('[aria-current]')?.textContent !== camera?.name) {
    byId('cameras').replaceChildren(...links);
  }
}

function toggleStatistics() {
  player.overlay = !player.overlay;
  byId('statistics').setAttribute('aria-pressed', player.overlay);
}

byId('statistics').onclick = toggleStatistics;
byId('fullscreen').onclick = player.ondblclick = () => player.fullscreen();
addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === 'f') player.fullscreen();
  if (event.key === 's') toggleStatistics();
});
addEventListener('hashchange', selectCamera);
document.addEventListener('visibilitychange', () => document.hidden || updateStatus());
player.addEventListener('statechange', updateStatus);
if (selectedName()) selectCamera();
else updateStatus();
