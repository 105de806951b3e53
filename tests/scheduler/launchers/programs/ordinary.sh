# What scripts do with coreutils and their like; prints one line a thing done.
set -eu
cd "$(mktemp -d)"

seq 1000 > numbers
test "$(shuf numbers | sort -n --parallel=2 | tail -n 1)" = 1000
test "$(cat numbers | tee copy | wc -l)" = 1000
cmp numbers copy
echo pipes

mkdir -p a/b/c; cp numbers a/b/c; ln -s numbers a/link; mkfifo a/fifo
cp -a a z; mv z y; touch -d 2020-01-01 y/b; chmod 750 y/b; chown "$(id -u):$(id -g)" y/b
ls -laR y > listing; du -s y > size; df . > free; stat -f . > stated; find y -type f -exec sha256sum {} + > sums
truncate -s 1M big; fallocate -l 1M big; dd if=/dev/zero of=big bs=64k count=8 conv=fsync status=none
sync; sync -f big; install -m 600 big small; split -n 4 big part; rm -r y a
echo files

tar cf a.tar numbers; gzip -k numbers; tar xzf - < /dev/null 2> /dev/null || true; gzip -dc numbers.gz | cmp - numbers
sed -i s/1/2/ numbers; awk '{s += $1} END {print s}' copy > sum; grep -c 9 copy > count; xargs -n 100 -P 4 echo < copy > lines
echo tools

(sleep 30 & child=$!; kill "$child"; wait "$child") 2> /dev/null || test $? = 143
timeout 0.05 sleep 30 || test $? = 124
nice -n 1 nohup setsid true; nproc > cores; date > now; uname -a > system; id > user; env -i true; stdbuf -o0 true
echo processes
