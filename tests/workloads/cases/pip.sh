#!/bin/sh
# pip: a virtual environment, wheels from a directory, a program that imports them, one taken away
# again. In /srv/pip.
set -eux
python3 -m venv venv
venv/bin/pip install --no-index --disable-pip-version-check --find-links /add/inputs/wheels \
	--requirement /add/inputs/requirements.txt
venv/bin/python -c 'import requests, sys; sys.exit(requests.__version__ != "2.31.0")'
venv/bin/pip check --disable-pip-version-check
venv/bin/pip uninstall --yes --disable-pip-version-check requests
! venv/bin/python -c 'import requests'
