"""Plugin for pytest: takes out of fakeredis what is not so in Redis 7.0.

Its model knows the version that it stands for, and in a few places does not heed it. With these the
random calls of its tests would find the same differences each time, and nothing behind them.
So it is with commands of 7.0 that the server under test has not got yet. It listens on SERVER_PORT.
"""

import os

import redis
from fakeredis._commands import SUPPORTED_COMMANDS, Int
from fakeredis.commands_mixins.bitmap_mixin import BitmapCommandsMixin

# Commands of 7.4 that the tests call.
NEWER = ("hexpire", "hexpiretime", "hpersist", "hpexpire", "hpexpiretime")

# Commands of 7.0 that the tests call and a server may lack: snapshots.
NOT_YET = ("bgsave", "lastsave", "save")

_bitcount = BitmapCommandsMixin.bitcount


def _bitcount_of_7_0(self, key, *args):
    # Of a key that is there, positions that are no numbers are an error, not a count of 0.
    if key.value is not None and 2 <= len(args) <= 3:
        Int.decode(args[0])
        Int.decode(args[1])
    return _bitcount(self, key, *args)


def pytest_configure():
    """Called once, before anything is collected."""
    client = redis.Redis(port=int(os.environ["SERVER_PORT"]))
    known = {name.decode() for name in client.command_list()}
    client.close()
    for name in NEWER + tuple(name for name in NOT_YET if name not in known):
        del SUPPORTED_COMMANDS[name]
    BitmapCommandsMixin.bitcount = _bitcount_of_7_0
