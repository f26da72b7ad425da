#!/bin/sh
# npm: install from a local directory (linked), from tarballs made on the spot, run an install script
# and a program, take one away, install again from the lock file. In /srv/npm.
set -eux
# No registry, and none asked for.
export npm_config_offline=true npm_config_audit=false npm_config_fund=false
export npm_config_update_notifier=false

package() {
	mkdir -p "$1"
	printf '{"name": "%s", "version": "1.0.0", "main": "index.js"%s}\n' "$1" "$2" >"$1/package.json"
}

package words ''
echo 'module.exports = ["a", "b", "c"];' >words/index.js
package join ', "dependencies": {"words": "1.0.0"}'
echo 'module.exports = () => require("words").join("-");' >join/index.js
package greet ', "bin": {"greet": "greet.js"}, "scripts": {"postinstall": "node made.js"}'
echo 'require("fs").writeFileSync("made", "by the install script");' >greet/made.js
printf '#!/usr/bin/env node\nconsole.log("hello " + require("join")());\n' >greet/greet.js
chmod +x greet/greet.js
package local ''
echo 'module.exports = 1;' >local/index.js
npm pack ./words ./join ./greet

mkdir app
cd app
npm init --yes >/dev/null
npm install ../words-1.0.0.tgz ../join-1.0.0.tgz ../greet-1.0.0.tgz
[ "$(npx greet)" = "hello a-b-c" ]
[ "$(cat node_modules/greet/made)" = "by the install script" ]
# Said, for its default was another in some releases.
npm install --install-links=false ../local
[ -L node_modules/local ]
npm uninstall local
[ ! -e node_modules/local ]
rm -r node_modules
npm ci
[ "$(npx greet)" = "hello a-b-c" ]
