package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"

	"github.com/vmware/govmomi/simulator"
)

// server is a running site: vCenter, the ESXi endpoints and the control API.
type server struct {
	v        *vcenter
	dir      string
	vcenter  *simulator.Server
	control  net.Listener
	names    []string         // of the endpoints, vCenter first
	esxi     map[string]*esxi // by the host's name
	vrouters map[string]bool  // the names of the vRouters' VMs
	ready    readyInfo
}

// readyInfo is the line printed when everything serves.
type readyInfo struct {
	VCenter endpointInfo `json:"vcenter"`
	Control string       `json:"control"`
	ESXi    []esxiInfo   `json:"esxi"`
	PID     int          `json:"pid"`
}

type endpointInfo struct {
	Address string `json:"address"`
	SHA256  string `json:"sha256"`
	PEM     string `json:"pem"`
}

type esxiInfo struct {
	Name string `json:"name"`
	MoID string `json:"moid"`
	User string `json:"user"`
	endpointInfo
}

// startServer builds a site and serves it. Files of VMs go below dir, which is
// the caller's to remove.
func startServer(s *site, dir string) (*server, error) {
	running := &server{dir: dir, names: []string{vcenterName}, esxi: map[string]*esxi{}, vrouters: map[string]bool{}}
	if err := running.start(s); err != nil {
		running.close()
		return nil, err
	}
	return running, nil
}

func (s *server) start(site *site) error {
	if err := checkListen(site); err != nil {
		return err
	}
	v, err := buildVcenter(newWorld(), site, s.dir)
	if err != nil {
		return err
	}
	s.v = v
	if err := s.startHosts(site); err != nil {
		return err
	}
	if err := s.startVcenter(site); err != nil {
		return err
	}
	if s.control, err = net.Listen("tcp", site.Control); err != nil {
		return err
	}
	s.ready.Control = s.control.Addr().String()
	s.ready.PID = os.Getpid()
	control := &http.Server{Handler: s.controlMux()}
	go func() { _ = control.Serve(s.control) }() // ends when the listener is closed
	return nil
}

// checkListen finds an address that can't be listened on before the simulator
// panics on it.
func checkListen(site *site) error {
	check := func(key, address string) error {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return &siteError{key, err.Error(), "a free port of an address of this machine"}
		}
		return l.Close()
	}
	if err := check("vcenter.listen", site.VCenter.Listen); err != nil {
		return err
	}
	for i, h := range site.Hosts {
		if err := check(fmt.Sprintf("hosts[%d].listen", i), h.Listen); err != nil {
			return err
		}
	}
	return check("control", site.Control)
}

// startHosts starts the endpoint of each host and fills it.
func (s *server) startHosts(site *site) error {
	byName := map[string]*simulator.HostSystem{}
	for _, e := range s.v.registry.All("HostSystem") {
		host := e.(*simulator.HostSystem)
		byName[host.Name] = host
	}
	for _, h := range site.Hosts {
		if h.VRouter != nil {
			s.vrouters[h.VRouter.Name] = true
		}
		cert, err := newCertificate(h.Name, h.Listen)
		if err != nil {
			return err
		}
		e := newESXi(s.v, byName[h.Name], h.Listen, url.UserPassword(h.User, h.Password), &cert.tls)
		s.v.hosts[e.host] = e
		s.esxi[h.Name] = e
		s.names = append(s.names, h.Name)
		s.ready.ESXi = append(s.ready.ESXi, esxiInfo{
			Name: h.Name, MoID: e.host.Value, User: h.User,
			endpointInfo: endpointInfo{Address: e.server.URL.Host, SHA256: cert.sha256, PEM: cert.pem},
		})
	}
	s.v.watchEvents()
	for _, vm := range s.v.registry.All("VirtualMachine") {
		s.v.mirrorVM(vm.Reference())
	}
	s.v.worker.sync()
	return nil
}

func (s *server) startVcenter(site *site) error {
	cert, err := newCertificate(vcenterName, site.VCenter.Listen)
	if err != nil {
		return err
	}
	service := s.v.service
	service.Listen = &url.URL{Host: site.VCenter.Listen, User: url.UserPassword(site.VCenter.User, site.VCenter.Password)}
	service.TLS = &tls.Config{Certificates: []tls.Certificate{cert.tls}, MinVersion: tls.VersionTLS12}
	service.ServeMux = http.NewServeMux()
	s.vcenter = service.NewServer()
	s.vcenter.Config.Handler = s.v.wrap(vcenterName, s.vcenter.Config.Handler)
	s.ready.VCenter = endpointInfo{Address: s.vcenter.URL.Host, SHA256: cert.sha256, PEM: cert.pem}
	return nil
}

// endpoint returns the parts of an endpoint by its name.
func (s *server) endpoint(name string) (*simulator.Service, *simulator.Registry, bool) {
	if name == vcenterName {
		return s.v.service, s.v.registry, true
	}
	if e := s.esxi[name]; e != nil {
		return e.service, e.registry, true
	}
	return nil, nil, false
}

func (s *server) endpointNames() []string { return s.names }

// close stops serving. It does not wait for open calls.
func (s *server) close() {
	if s.control != nil {
		_ = s.control.Close()
	}
	if s.vcenter != nil {
		_ = s.vcenter.Config.Close()
	}
	for _, e := range s.esxi {
		_ = e.server.Config.Close()
	}
}
