// For dev/check-browser.sh: a person at a page of passkeys, with authenticators that Chromium plays (its DevTools' `WebAuthn`).
import assert from "node:assert/strict";

// In every page: what Karat gives is in the JSON forms of WebAuthn, whose members the browser all reads. It leaves others out
// without a word, so they are looked for.
function watchForms() {
  const paths = (value, path) =>
    Object.entries(value).flatMap(([name, inner]) =>
      typeof inner === "object" ? paths(inner, `${path}.${name}`) : [`${path}.${name}`]);
  const has = (value, path) =>
    path.split(".").slice(1).every((name) => { value = value?.[name]; return value !== undefined; });
  for (const name of ["parseCreationOptionsFromJSON", "parseRequestOptionsFromJSON"]) {
    const parse = PublicKeyCredential[name].bind(PublicKeyCredential);
    PublicKeyCredential[name] = (given) => {
      const read = parse(given);
      const lost = paths(given, "").filter((path) => !has(read, path));
      if (lost.length > 0) throw new TypeError(`${name} reads no ${lost}`);
      return read;
    };
  }
}

export class Visit {
  static async begin(browser, address, password) {
    const visit = new Visit();
    Object.assign(visit, { address, password });
    visit.page = await (await browser.newContext()).newPage();
    await visit.page.addInitScript(watchForms);
    await visit.page.goto(address);
    visit.frame = visit.page.mainFrame();
    visit.devices = await visit.page.context().newCDPSession(visit.page);
    // Without it a person would have to touch something in a window.
    await visit.devices.send("WebAuthn.enable", { enableUI: false });
    return visit;
  }

  // Connects an authenticator that says yes to everything, perhaps one with a passkey; answers its name.
  async plug(kind, passkey) {
    const options = { protocol: "ctap2", hasResidentKey: true, automaticPresenceSimulation: true, ...kind };
    const { authenticatorId } = await this.devices.send("WebAuthn.addVirtualAuthenticator", { options });
    if (passkey) await this.put(authenticatorId, passkey);
    return authenticatorId;
  }

  unplug(authenticatorId) {
    return this.devices.send("WebAuthn.removeVirtualAuthenticator", { authenticatorId });
  }

  put(authenticatorId, credential) {
    return this.devices.send("WebAuthn.addCredential", { authenticatorId, credential });
  }

  async credentials(authenticatorId) {
    return (await this.devices.send("WebAuthn.getCredentials", { authenticatorId })).credentials;
  }

  async replace(authenticatorId, credential) {
    const { credentialId } = credential;
    await this.devices.send("WebAuthn.removeCredential", { authenticatorId, credentialId });
    await this.put(authenticatorId, credential);
  }

  // Forgets the log-in: the module keeps its token in the page alone.
  reload() {
    return this.page.reload();
  }

  // Goes on in a page at `address` inside this one, which lets it ask passkeys.
  async enclose(address) {
    const inside = await this.page.evaluateHandle((src) => {
      const frame = Object.assign(document.createElement("iframe"), { src, allow: "publickey-credentials-get *" });
      document.body.append(frame);
      return new Promise((done) => { frame.onload = () => done(frame); });
    }, address);
    this.frame = await inside.asElement().contentFrame();
  }

  // Calls what the module of docs/ACCOUNTS.md exports.
  call(name, ...given) {
    return this.frame.evaluate(async ([name, given]) => (await import("/passkeys.js"))[name](...given), [name, given]);
  }

  logIn(name) {
    return this.call("logIn", name, this.password);
  }

  add(name, isWayIn) {
    return this.call("addPasskey", this.password, name, isWayIn);
  }

  logInByPasskey(...ticket) {
    return this.call("logInByPasskey", ...ticket);
  }

  async logInInTwoSteps(name) {
    await this.reload();
    const first = await this.logIn(name);
    assert.equal(first.access_token, undefined, "the password alone is not enough");
    assert.ok(first.mfa_methods.includes("passkey"), first.mfa_methods);
    assert.equal((await this.logInByPasskey(first.mfa_token)).user.username, name);
  }

  // What an act is refused with, by the browser or by Karat.
  refused(act) {
    return act().then(() => assert.fail("it was not refused"), (error) => String(error));
  }

  // Until the page is loaded again, it asks an authenticator otherwise than Karat said, and says itself whose the passkey is, as
  // a page of others would.
  pretend(credentialId, userHandle) {
    return this.frame.evaluate(([credentialId, userHandle]) => {
      const get = CredentialsContainer.prototype.get.bind(navigator.credentials);
      const id = Uint8Array.from(atob(credentialId), (letter) => letter.charCodeAt(0));
      const otherwise = { userVerification: "discouraged", allowCredentials: [{ type: "public-key", id }] };
      navigator.credentials.get = async ({ publicKey }) => {
        const said = (await get({ publicKey: { ...publicKey, ...otherwise } })).toJSON();
        return { toJSON: () => ({ ...said, response: { ...said.response, userHandle } }) };
      };
    }, [credentialId, userHandle]);
  }

  // From now on the page offers one kind of keys alone.
  offerOnly(alg) {
    return this.frame.evaluate((alg) => {
      const create = CredentialsContainer.prototype.create.bind(navigator.credentials);
      navigator.credentials.create = ({ publicKey }) => {
        const pubKeyCredParams = publicKey.pubKeyCredParams.filter((one) => one.alg === alg);
        if (pubKeyCredParams.length !== 1) throw new Error(`${alg} is not offered once`);
        return create({ publicKey: { ...publicKey, pubKeyCredParams } });
      };
    }, alg);
  }
}
