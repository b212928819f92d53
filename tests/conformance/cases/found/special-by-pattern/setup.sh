mkdir -p d/e
python3 -c "
import os, socket
for name in ('a-socket', 'd/e/a1'):
    socket.socket(socket.AF_UNIX).bind(name)
    os.chmod(name, 0o751)
"
mkfifo a-pipe d/e/a2
mknod -m 640 a-device c 5 7
