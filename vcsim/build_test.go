package main

import (
	"fmt"
	"testing"
)

// generated is a site of many hosts and running VMs on one portgroup.
func generated(hosts, vms int) *site {
	s := &site{VCenter: vcenterSpec{User: "a", Password: "b"}}
	for i := range hosts {
		s.Hosts = append(s.Hosts, hostSpec{Name: fmt.Sprintf("esx-%d", i), User: "root", Password: "p"})
	}
	s.Portgroups = []portgroupSpec{{Name: "blue", Ports: int32(vms + 1)}}
	for i := range vms {
		s.VMs = append(s.VMs, vmSpec{
			Name: fmt.Sprintf("vm%04d", i), Host: s.Hosts[i%hosts].Name, Networks: []string{"blue"}, Power: "on",
		})
	}
	s.fillDefaults()
	return s
}

func TestLargerSiteIsBuiltWhole(t *testing.T) {
	v, err := buildVcenter(newWorld(), generated(4, 40), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	connected := 0
	for _, s := range v.switches {
		for _, p := range s.ports {
			if p.nic != nil && p.linkUp {
				connected++
			}
		}
	}
	if connected != 40 {
		t.Errorf("%d ports are connected and up", connected)
	}
}

func BenchmarkBuildSite(b *testing.B) {
	for b.Loop() {
		if _, err := buildVcenter(newWorld(), generated(4, 500), b.TempDir()); err != nil {
			b.Fatal(err)
		}
	}
}
