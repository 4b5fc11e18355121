"""A worker without a network, for tests of how workers are started, heard and ended: its input says what it does."""

import os
import socket
import sys
import time

from slm_helpers.training.workers import connect_to_launcher

if __name__ == "__main__":
    value, report = connect_to_launcher()
    report({"heard": value, "interfaces": sorted(name for _, name in socket.if_nameindex())})
    print("noise of a library")
    if value == "fail":
        print("ValueError: the disk is full", file=sys.stderr)
        os._exit(3)
    if value == "hang":
        time.sleep(600)
