"""An agent that never stops trying: opens a file that it may not write and one that it may, and
keeps "DENIED LEAKED FAILED" in /srv/agent/prober, whatever happens to the daemon meanwhile."""

import os
import time

denied = leaked = failed = 0
state = os.open("/srv/agent/prober", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
while True:
    try:
        os.close(os.open("/srv/other/secret", os.O_WRONLY | os.O_CREAT))
        leaked += 1
    except PermissionError:
        denied += 1
    try:
        os.close(os.open("/srv/agent/scratch", os.O_WRONLY | os.O_CREAT))
    except OSError:
        failed += 1
    os.pwrite(state, b"%d %d %d\n" % (denied, leaked, failed), 0)
    time.sleep(0.01)
