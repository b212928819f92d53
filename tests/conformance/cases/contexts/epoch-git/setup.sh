git init -q -b main ../work; cd ../work
echo root > root.txt; git add .; GIT_COMMITTER_DATE='1600000001 +0200' git commit -qm one
mkdir -p ../git; git clone -q --bare . ../git/r.git
