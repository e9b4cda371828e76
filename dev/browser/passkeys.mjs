// For dev/check-browser.sh: passkeys in a browser, with authenticators that it plays itself. What runs in the page is the
// module of docs/ACCOUNTS.md.
import assert from "node:assert/strict";
import { Visit } from "./visit.mjs";

const PHONE = { transport: "internal", hasUserVerification: true, isUserVerified: true };
const SECURITY_KEY = { transport: "usb", hasUserVerification: false };
const OLD_SECURITY_KEY = { ...SECURITY_KEY, protocol: "u2f", hasResidentKey: false };
// Kinds of keys, as COSE numbers them.
const KINDS = { ES256: -7, EdDSA: -8, RS256: -257 };

// `people` are names of accounts with one password; `ask` calls as an admin.
export async function checkPasskeys(browser, { origin, other, bareAddress, people, password, ask }) {
  const visit = (address) => Visit.begin(browser, address, password);
  const [first, second, third] = people;
  await checkPhone(await visit(origin), await visit(other), await visit(bareAddress), first);
  await checkSecurityKey(await visit(origin), await visit(origin), second);
  await checkKinds(await visit(origin), third);
  const { rows } = await ask("/admin/audit?action=passkey_login&outcome=denied");
  const reasons = rows.map(({ details }) => JSON.parse(details).reason).reverse();
  assert.deepEqual(reasons, ["origin", "origin", "counter", ...Array(4).fill("verification")]);
}

async function checkPhone(visit, elsewhere, bare, name) {
  const phone = await visit.plug(PHONE);
  const begun = await visit.logIn(name);
  assert.ok(begun.access_token, "the first log-in needs no second factor");
  const added = await visit.add("phone");
  assert.equal(added.is_way_in, true);
  assert.equal(added.recovery_codes.length, 10);
  assert.match(await visit.refused(() => visit.add("once more")), /InvalidStateError/);

  await visit.reload();
  assert.equal((await visit.logInByPasskey()).user.username, name, "alone");
  await visit.logInInTwoSteps(name);

  // The browser signs for another port of the same host, and for a page of ours inside one of others, and Karat refuses it; of
  // another host it does not sign.
  const [passkey] = await visit.credentials(phone);
  await elsewhere.plug(PHONE, passkey);
  assert.match(await elsewhere.refused(() => elsewhere.logInByPasskey()), /invalid_code/);
  await elsewhere.enclose(visit.address);
  assert.match(await elsewhere.refused(() => elsewhere.logInByPasskey()), /invalid_code/);
  await bare.plug(PHONE, passkey);
  assert.match(await bare.refused(() => bare.logInByPasskey()), /SecurityError/);

  // A copy counts from where it was made.
  await visit.replace(phone, { ...passkey, signCount: 0 });
  assert.match(await visit.refused(() => visit.logInByPasskey()), /invalid_code/);
  await visit.replace(phone, passkey);
  assert.equal((await visit.logInByPasskey()).user.username, name, "the first one still works");
}

async function checkSecurityKey(visit, later, name) {
  const { user } = await visit.logIn(name);
  const handle = Buffer.from(user.id.replaceAll("-", ""), "hex");
  for (const kind of [OLD_SECURITY_KEY, SECURITY_KEY]) {
    const key = await visit.plug(kind);
    assert.equal((await visit.add("key", false)).is_way_in, false);
    await visit.logInInTwoSteps(name);
    assert.match(await visit.refused(() => visit.logInByPasskey()), /NotAllowedError/);
    const [passkey] = await visit.credentials(key);
    await visit.pretend(passkey.credentialId, handle.toString("base64url"));
    assert.match(await visit.refused(() => visit.logInByPasskey()), /invalid_code/);
    await visit.logInInTwoSteps(name);
    await visit.unplug(key);

    // Whoever found it gave it a PIN, and had it keep the passkey.
    const verifying = { ...PHONE, transport: "usb" };
    const kept = { isResidentCredential: true, rpId: "localhost", userHandle: handle.toString("base64") };
    const copy = { ...passkey, ...kept, signCount: passkey.signCount + 100 };
    const better = await later.plug(verifying, copy);
    assert.match(await later.refused(() => later.logInByPasskey()), /invalid_code/);
    await later.logInInTwoSteps(name);
    await later.unplug(better);
  }
}

// Each kind of key that is offered is made and counts.
async function checkKinds(visit, name) {
  await visit.logIn(name);
  for (const [kind, number] of Object.entries(KINDS)) {
    const device = await visit.plug(PHONE);
    await visit.offerOnly(number);
    await visit.add(kind);
    assert.equal((await visit.logInByPasskey()).user.username, name, kind);
    await visit.unplug(device);
  }
}
