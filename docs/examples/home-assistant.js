// A card for Home Assistant dashboards, written from Home Assistant's documentation and untested.
//
// 1. Set the server's URL below.
// 2. Copy this file into Home Assistant's directory config/www/.
// 3. Add /local/home-assistant.js as a resource of type "JavaScript module" (Settings, Dashboards, Resources).
// 4. Add the card:
//
//   type: custom:berry-mse-card
//   camera: front
//
// The server's configuration must allow Home Assistant's origin: origins = ["http://homeassistant.local:8123"].
// If Home Assistant uses HTTPS, put a TLS proxy in front of the server.

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
