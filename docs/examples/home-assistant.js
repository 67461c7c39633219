// A card for Home Assistant's dashboards. (Written from Home Assistant's documentation; not run by the tests here.)
//
// Put this file into Home Assistant's folder config/www/, with the camera's address below, and add
// /local/home-assistant.js as a resource of the kind "JavaScript module" (Settings, Dashboards, Resources). Then:
//
//   type: custom:berry-mse-card
//   camera: front
//
// The camera's configuration has to allow Home Assistant's origin: origins = ["http://homeassistant.local:8123"].
// Home Assistant over https wants a camera over https, too: a proxy with TLS in front of it.

const server = 'http://cam.local:2020';
import(`${server}/berrymse.js`);

customElements.define('berry-mse-card', class extends HTMLElement {
  setConfig({ camera, mode = 'auto' }) {
    const player = document.createElement('berry-mse');
    if (camera) player.setAttribute('src', `${server}/live/${encodeURIComponent(camera)}`);
    player.setAttribute('mode', mode);
    player.setAttribute('controls', '');
    player.style.aspectRatio = '16/9';
    const card = document.createElement('ha-card');
    card.style.overflow = 'hidden';
    card.append(player);
    this.replaceChildren(card);
  }

  getCardSize() { return 5; }
});
