// The same as lookups.py by Go's own resolver: built without C, it sends A and AAAA side by side, and comes
// by TCP for answers that are cut.
//
//	lookups NETWORK.json COUNT TASKS
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	port      = "8000"
	window    = 20
	rounds    = 2
	twinEvery = 10
	patience  = 60 * time.Second
)

// Names with their addresses, in the order of the names.
type names struct {
	name      string
	addresses []string
}

var (
	listed, unlisted                             []names
	lookups, connects, nxdomain, refused, wrongs atomic.Int64
)

func wrong(format string, arguments ...any) {
	wrongs.Add(1)
	fmt.Printf("go: "+format+"\n", arguments...)
}

func sorted(of map[string][]string) []names {
	var all []names
	for name, addresses := range of {
		sort.Strings(addresses)
		all = append(all, names{name, addresses})
	}
	// The number decides, not the letter before it: the windows are those of the other programs.
	sort.Slice(all, func(a, b int) bool { return all[a].name[1:4] < all[b].name[1:4] })
	return all
}

func asked(name string) ([]string, error) {
	within, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	found, err := net.DefaultResolver.LookupHost(within, name)
	sort.Strings(found)
	return found, err
}

// The address at which the server says that it was reached.
func page(address string) (string, error) {
	connection, err := net.DialTimeout("tcp", net.JoinHostPort(address, port), patience)
	if err != nil {
		return "", err
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(connection, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return "", err
	}
	said, err := io.ReadAll(connection)
	_, body, _ := strings.Cut(string(said), "\r\n\r\n")
	return strings.TrimSpace(body), err
}

func operation(number, total int) {
	windows := len(listed) / window
	start := number * rounds * windows / total % windows * window
	one := listed[start+rand.Intn(window)]
	found, err := asked(one.name)
	if err != nil {
		wrong("operation %d: %v", number, err)
		return
	}
	lookups.Add(1)
	if strings.Join(found, " ") != strings.Join(one.addresses, " ") {
		wrong("%s is %v, and the answer was %v", one.name, one.addresses, found)
	}
	address := found[rand.Intn(len(found))]
	said, err := page(address)
	if err != nil || said != address {
		wrong("%s was not reached: %s %v", address, said, err)
		return
	}
	connects.Add(1)
}

func twin(number int) {
	one := unlisted[number%len(unlisted)]
	found, err := asked(one.name)
	var failure *net.DNSError
	if !errors.As(err, &failure) || !failure.IsNotFound {
		wrong("%s: %v %v", one.name, found, err)
	} else {
		nxdomain.Add(1)
	}
	for _, address := range one.addresses {
		if said, err := page(address); !errors.Is(err, syscall.EPERM) {
			wrong("%s: %s %v", address, said, err)
		} else {
			refused.Add(1)
		}
	}
}

func main() {
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		panic(err)
	}
	var zone struct{ Listed, Unlisted map[string][]string }
	if err := json.Unmarshal(text, &zone); err != nil {
		panic(err)
	}
	listed, unlisted = sorted(zone.Listed), sorted(zone.Unlisted)
	total, _ := strconv.Atoi(os.Args[2])
	tasks, _ := strconv.Atoi(os.Args[3])
	rand.Seed(time.Now().UnixNano())
	var all sync.WaitGroup
	for first := 0; first < tasks; first++ {
		all.Add(1)
		go func(first int) {
			defer all.Done()
			for number := first; number < total; number += tasks {
				operation(number, total)
				if number%twinEvery == 0 {
					twin(number / twinEvery)
				}
			}
		}(first)
	}
	all.Wait()
	fmt.Println("tally go", lookups.Load(), connects.Load(), nxdomain.Load(), refused.Load(), wrongs.Load())
}
