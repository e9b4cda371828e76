"""For dev/schemathesis.sh: the log-in of a run, and what Schemathesis cannot know about the questions that it asks.

    schemathesis.py login         logs in; prints the access token and the ids that no question may name
    schemathesis.py check TOKEN   fails when the token does not work any more

As the module in SCHEMATHESIS_HOOKS it keeps the account and the session of the run out of the questions, and makes the
bodies that are not JSON. KARAT_URL, KARAT_USER and KARAT_PASSWORD name the server and the account.
"""

import json
import os
import sys
import urllib.error
import urllib.request

NOBODY = "01900000-0000-7000-8000-000000000000"


def ask(path, token=None, body=None):
    headers = {"Content-Type": "application/json"} if body else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(f"{os.environ['KARAT_URL']}/api/v1{path}", data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["data"]


def log_in():
    account = {"username": os.environ["KARAT_USER"], "password": os.environ["KARAT_PASSWORD"]}
    tokens = ask("/auth/login", body=account)
    token = tokens["access_token"]
    sessions = [session["id"] for session in ask("/auth/sessions", token) if session["is_current"]]
    print(token, tokens["user"]["id"], *sessions)


def check(token):
    try:
        ask("/auth/me", token)
    except urllib.error.HTTPError as error:
        sys.exit(f"schemathesis: the token of the run is answered {error.code}")


def install_hooks():
    import schemathesis

    own = set(os.environ["KARAT_RUN_IDS"].split())

    @schemathesis.hook
    def before_call(context, case, kwargs):
        for name, value in list((case.path_parameters or {}).items()):
            if str(value).lower() in own:
                case.path_parameters[name] = NOBODY

    # Lines of JSON are text to the document.
    @schemathesis.serializer("application/x-ndjson")
    def lines(context, value):
        if isinstance(value, bytes):
            return value
        text = value if isinstance(value, str) else json.dumps(value)
        return text.encode(errors="replace")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["login"]:
            log_in()
        case ["check", token]:
            check(token)
        case _:
            sys.exit(__doc__)
else:
    install_hooks()
