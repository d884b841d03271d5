// Command app is what the containers of the tests run.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	mode := "serve"
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	switch mode {
	case "serve":
		fmt.Println("ready")
		go http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, os.Getenv("GREETING")) }))
		<-term
	case "stubborn": // hears SIGTERM and stays
		fmt.Println("ready")
		for {
			time.Sleep(time.Hour)
		}
	case "check": // healthy unless the file says something; never done when another is there
		if _, err := os.Stat("/data/hang"); err == nil {
			time.Sleep(time.Hour)
		}
		if text, _ := os.ReadFile("/data/sick"); len(text) > 0 {
			fmt.Println("feeling \x1b[31msick\x1b[0m")
			os.Exit(1)
		}
	case "serve-unless-sick": // or gives up at its start
		if text, _ := os.ReadFile("/data/sick"); len(text) > 0 {
			fmt.Println("giving up: sick")
			os.Exit(1)
		}
		<-term
	case "am": // a check of who it runs as and where, and then the usual one
		dir, _ := os.Getwd()
		if text, _ := os.ReadFile("/data/sick"); len(text) > 0 || strconv.Itoa(os.Getuid()) != os.Args[2] || dir != os.Args[3] {
			os.Exit(1)
		}
	case "eat": // memory, until the kernel ends it
		for all := [][]byte{}; ; all = append(all, make([]byte, 1<<20)) {
			for _, b := range all {
				for i := 0; i < len(b); i += 4096 {
					b[i]++
				}
			}
		}
	case "say": // who it is and what it is told
		fmt.Println(os.Getuid(), os.Getenv("SNAP_WORKLOAD"))
	case "spawn": // another process, in a session of its own, that stays as it does
		child := exec.Command("/app", "stubborn")
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := child.Start(); err != nil {
			os.Exit(1)
		}
		for {
			time.Sleep(time.Hour)
		}
	case "exit":
		code, _ := strconv.Atoi(os.Args[2])
		fmt.Println("giving up")
		os.Exit(code)
	}
}
