"""A tab whose guests are called right and whose answers are changed: what a worker does that is not to be believed.

Its vat comes to it altered, so that each slot that it starts has a lie before the slot's own code. Nothing of ww is
changed for it, nor known of it but how its files are called.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.browser.chromium import Chromium, Profile

if TYPE_CHECKING:
    from playwright.sync_api import Route

VAT = "**/assets/vat-*.js"
# In each slot: what an exported function returns is one more.
LIE = """
const Honest = WebAssembly.Instance;
const lie = (exports) => Object.fromEntries(Object.entries(exports).map(([name, value]) => [name,
  typeof value === "function" ? (...given) => {
    const told = value(...given);
    return typeof told === "bigint" ? told + 1n : told;
  } : value]));
WebAssembly.Instance = class { constructor(...given) { this.exports = lie(new Honest(...given).exports); } };
const instantiate = WebAssembly.instantiate;
WebAssembly.instantiate = async (...given) => {
  const made = await instantiate(...given);
  if (!made.instance) return { exports: lie(made.exports) };
  return { ...made, instance: { exports: lie(made.instance.exports) } };
};
"""
# In the vat: a slot is the lie and then what it would have been. Top scripts of workers that workers start are not seen
# by whoever drives the browser, so it cannot be done there.
SLOTS_LIE = f"""
{{
  const Thread = self.Worker;
  self.Worker = class extends Thread {{
    constructor(address, options) {{
      const request = new XMLHttpRequest();
      request.open("GET", address, false);
      request.send();
      super(URL.createObjectURL(new Blob([{LIE!r}, request.responseText], {{ type: "text/javascript" }})), options);
    }}
  }};
}}
"""


@contextlib.contextmanager
def lying_profile(chromium: Chromium, origin: str) -> Iterator[Profile]:
    """Give a profile whose tabs all lie."""

    def rewrite(route: "Route") -> None:
        answer = route.fetch()
        # Its own policy would refuse what was not the gateway's.
        headers = {name: value for name, value in answer.headers.items() if name != "content-security-policy"}
        route.fulfill(response=answer, headers=headers, body=SLOTS_LIE + answer.text())

    # To Chromium, what did not come from the network itself may be anybody's, who must ask to reach this machine.
    with chromium.profile(origin, permissions=["local-network-access"]) as profile:
        profile.context.route(VAT, rewrite)
        yield profile
