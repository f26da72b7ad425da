#!/bin/sh
# git: clone with and without hard links, commit, push, pack, check out. In /srv/git; the origin
# that it may only read is /srv/mirror/origin.git.
set -eux
git config --global user.name Worker
git config --global user.email worker@example.com
git config --global init.defaultBranch main

# Somebody else's repository. git tries hard links first; a link to what it may not write is
# refused (that one denial is expected), and git copies instead.
git clone /srv/mirror/origin.git copied
[ "$(stat -c %h copied/.git/objects/pack/*.pack)" -eq 1 ]

git clone --bare --no-hardlinks /srv/mirror/origin.git own.git
git clone --local own.git linked
[ "$(stat -c %h linked/.git/objects/pack/*.pack)" -eq 2 ]
git clone --no-hardlinks own.git work
cd work
git checkout -b topic
for number in 1 2 3 4 5; do
	mkdir -p "src/$number"
	seq 1 200 >"src/$number/file"
	git add .
	git commit -q -m "change $number"
done
git mv src/1 src/one
git rm -q src/5/file
git commit -q -m "moved and removed"
git tag -a v1 -m "version 1"
git push -q origin topic v1
git checkout -q main
[ ! -e src ]
git merge -q --no-ff -m merged topic
git stash list
git worktree add -q ../tree topic
git repack -a -d -q
git gc -q --prune=now
git fsck --strict
[ "$(git log --oneline | wc -l)" -eq 9 ]
git checkout -q HEAD~1
git reset -q --hard main
git clean -q -f -d
[ -z "$(git status --porcelain)" ]
cd ../linked
git pull -q origin topic
git fsck
