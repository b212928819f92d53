python3 - <<'END'
import io, os, tarfile
dockerfile = f"""FROM {os.environ["CONF_REGISTRY"]}/conf/busybox:1
COPY . /o
COPY d /e
RUN --mount=target=/m stat -c '%n %A %u %g' /m /m/* /m/*/* > /seen
"""
archive = tarfile.open("../in.tar", "w")


def add(name, data="", kind=tarfile.REGTYPE, mode=0o644, owner=(0, 0), link="", device=(0, 0)):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname = kind, mode, link
    info.uid, info.gid = owner
    info.devmajor, info.devminor = device
    info.size, info.mtime = len(data), 1600000000
    archive.addfile(info, io.BytesIO(data.encode()))


add("./", kind=tarfile.DIRTYPE, mode=0o2700, owner=(3, 4))
add("./Dockerfile", dockerfile)
add("./.dockerignore", "ignored\n")
add("./Dockerfile.dockerignore", "ignored\n")
add("./ignored", "ignored\n")
add("./d", kind=tarfile.DIRTYPE, mode=0o2755, owner=(4, 5))
add("./d/f", "f\n", mode=0o4755, owner=(6, 7))
add("./d/h", kind=tarfile.LNKTYPE, mode=0o4755, owner=(6, 7), link="./d/f")
add("./d/l", kind=tarfile.SYMTYPE, mode=0o777, owner=(3, 3), link="f")
add("./d/null", kind=tarfile.CHRTYPE, mode=0o600, owner=(1, 2), device=(1, 3))
add("./d/pipe", kind=tarfile.FIFOTYPE, mode=0o600, owner=(1, 2))
add("implied/x", "x\n", owner=(1, 1))
add("../up", "up\n")
add("d/../../../d/upper", "up\n")
archive.close()
END
