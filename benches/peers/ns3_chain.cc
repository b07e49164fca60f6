// ns-3's realtime simulator as a data plane: a CSMA channel of unlimited rate between every pair of
// TAPs, each TAP behind a FdNetDevice that is bridged to the CSMA device.
//
// Purpose: the peer beside which Tapestry is measured, over the same namespaces and the same load.
// Best-effort synchronisation (ns-3's default). Packet metadata and checksums stay off, as in
// the Qemunet paper.
//
// Usage: ns3_chain A:B [A:B ...]   (inherited file descriptors of TAPs, one pair a link)
//        NS3_DELAY_NS=10000000     one-way delay of every link
// Ends when its standard input ends.
//
// Build: g++ -O2 -o ns3_chain ns3_chain.cc $(pkg-config --cflags --libs ns3-core ns3-network \
//        ns3-csma ns3-bridge ns3-fd-net-device)

#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <unistd.h>

#include "ns3/bridge-helper.h"
#include "ns3/core-module.h"
#include "ns3/csma-helper.h"
#include "ns3/fd-net-device.h"
#include "ns3/network-module.h"

using namespace ns3;

int
main(int argc, char** argv)
{
    GlobalValue::Bind("SimulatorImplementationType", StringValue("ns3::RealtimeSimulatorImpl"));
    GlobalValue::Bind("ChecksumEnabled", BooleanValue(false));
    const char* delay = std::getenv("NS3_DELAY_NS");

    for (int i = 1; i < argc; ++i)
    {
        int fd[2];
        if (std::sscanf(argv[i], "%d:%d", &fd[0], &fd[1]) != 2)
        {
            std::fprintf(stderr, "ns3_chain: expected A:B, found %s\n", argv[i]);
            return 2;
        }
        NodeContainer nodes;
        nodes.Create(2);
        CsmaHelper csma;
        // ns-3 has no unlimited rate: the largest makes a frame's serialisation round to 0 ns.
        csma.SetChannelAttribute("DataRate", StringValue("100000Gbps"));
        csma.SetChannelAttribute("Delay", TimeValue(NanoSeconds(delay ? std::atoll(delay) : 0)));
        NetDeviceContainer stations = csma.Install(nodes);
        for (int end = 0; end < 2; ++end)
        {
            Ptr<FdNetDevice> outside = CreateObject<FdNetDevice>();
            outside->SetAddress(Mac48Address::Allocate());
            nodes.Get(end)->AddDevice(outside);
            outside->SetFileDescriptor(fd[end]);
            NetDeviceContainer ports;
            ports.Add(outside);
            ports.Add(stations.Get(end));
            BridgeHelper bridge;
            bridge.Install(nodes.Get(end), ports);
        }
    }
    std::thread([] {
        char byte;
        while (read(0, &byte, 1) > 0)
        {
        }
        std::_Exit(0);
    }).detach();
    Simulator::Run();
    return 0;
}
