printf 'Dockerfile\n.dockerignore\n' > .dockerignore
mkdir d
python3 - <<'P'
import os, socket
for name, mode in (('one', 0o755), ('d/two', 0o700)):
    socket.socket(socket.AF_UNIX).bind(name)
    os.chmod(name, mode)
P
ln d/two also-two
mknod -m 640 tty c 5 7
mknod disk b 300 70000
mknod d/loop b 7 0
mkfifo d/pipe
