"""A mail server for tests: takes every message and writes it to a folder, one file a recipient.

Usage: mail-server.py PORT FOLDER. The file's name is RECIPIENT.NUMBER.eml; it appears under it when it is whole.
"""

import asyncio
import itertools
import os
import re
import sys

from aiosmtpd.controller import UnthreadedController


class Folder:
    def __init__(self, folder):
        self.folder = folder
        self.numbers = itertools.count()

    async def handle_DATA(self, server, session, envelope):
        for recipient in envelope.rcpt_tos:
            name = re.sub(r"[^A-Za-z0-9@._+-]", "?", recipient)
            path = os.path.join(self.folder, f"{name}.{next(self.numbers):06}.eml")
            with open(path + ".part", "wb") as out:
                out.write(envelope.content)
            os.rename(path + ".part", path)
        return "250 taken"


def main():
    port, folder = int(sys.argv[1]), sys.argv[2]
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    UnthreadedController(Folder(folder), hostname="127.0.0.1", port=port, loop=loop).begin()
    loop.run_forever()


main()
