// What Go programs do; prints one line a thing done.
package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

func check(err error, what string) {
	if err != nil {
		panic(what + ": " + err.Error())
	}
}

func done(holds bool, what string) {
	if !holds {
		panic(what)
	}
	fmt.Println(what)
}

func main() {
	var group sync.WaitGroup
	var lock sync.Mutex
	sum := 0
	for i := 0; i < 1000; i++ {
		group.Add(1)
		go func(i int) { defer group.Done(); lock.Lock(); sum += i; lock.Unlock() }(i)
	}
	group.Wait()
	done(sum == 499500, "goroutines")

	command := exec.Command("tr", "a-z", "A-Z")
	command.Stdin = strings.NewReader("abc")
	output, err := command.Output()
	check(err, "exec")
	done(string(output) == "ABC", "processes")

	folder, err := os.MkdirTemp("", "a")
	check(err, "folder")
	from, to := filepath.Join(folder, "x"), filepath.Join(folder, "y")
	check(os.WriteFile(from, make([]byte, 100000), 0o600), "write")
	source, err := os.Open(from)
	check(err, "open")
	target, err := os.Create(to)
	check(err, "create")
	copied, err := io.Copy(target, source)
	check(err, "copy")
	check(target.Sync(), "sync")
	mapped, err := syscall.Mmap(int(source.Fd()), 0, 4096, syscall.PROT_READ, syscall.MAP_SHARED)
	check(err, "map")
	done(copied == 100000 && len(mapped) == 4096, "files")

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err, "listen")
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	answer, err := http.Post("http://"+listener.Addr().String(), "text/plain", strings.NewReader("echo"))
	check(err, "post")
	echoed, err := io.ReadAll(answer.Body)
	check(err, "answer")
	done(string(echoed) == "echo", "sockets")
	interfaces, err := net.Interfaces()
	check(err, "interfaces")
	done(interfaces[0].Name == "lo", "interfaces")

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	check(syscall.Kill(os.Getpid(), syscall.SIGUSR1), "kill")
	<-signals
	_, err = rand.Read(make([]byte, 16))
	check(err, "chance")
	time.Sleep(time.Millisecond)
	done(true, "rest")
}
